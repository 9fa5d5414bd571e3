"""One module a prediction: its question, population, features, candidates and baselines."""

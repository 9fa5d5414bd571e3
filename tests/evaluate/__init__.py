"""`make evaluate`: what the models are worth, on a server of its own, written to docs/evaluation.md."""

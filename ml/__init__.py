"""Models: a lifecycle shared by all use cases, one module a prediction, and the decisions taken from predictions."""

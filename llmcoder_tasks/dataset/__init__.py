"""Training data: examples, variations, splits, expectations."""

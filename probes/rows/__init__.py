"""Rows of activations before a probe sees them: labels, folds, moments, massive values."""

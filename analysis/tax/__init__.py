"""The tax of a suite: differences between two models, with intervals and tests."""

"""Scoring and attribution cut into pieces that any number of workers do, with the same tables."""

"""Dictionaries of features: what they compute, and the files that they come in."""

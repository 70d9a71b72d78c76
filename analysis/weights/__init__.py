"""Differences between two models' weights: their units, mixtures and gradients."""

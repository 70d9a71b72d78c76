"""The objects that a notebook holds: a pair, its activations, and comparisons of finished runs."""

"""Training of dictionaries from a stream of activations."""

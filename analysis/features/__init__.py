"""Dictionaries of features read on a pair of models, and an account of the tax in their latents."""

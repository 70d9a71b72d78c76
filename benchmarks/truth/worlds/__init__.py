"""The embedded world and its base models."""

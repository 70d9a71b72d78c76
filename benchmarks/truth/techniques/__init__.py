"""Alignment techniques trained on the embedded base."""

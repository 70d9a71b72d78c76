"""Checkpoints: loading them, their adapters and families, and whether two can be compared."""

"""Measures of representation similarity, streamed over rows."""

"""Similarity against published codes: the conformance table, and speed."""

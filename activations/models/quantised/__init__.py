"""Weights stored in few bits, decoded from their tensors alone."""

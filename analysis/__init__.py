"""Outputs of models and probes to effects with intervals: tax, attribution, state and frontier."""

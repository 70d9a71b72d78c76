"""Interventions on weights and activations, and what each changes."""

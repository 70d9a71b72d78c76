"""The tax stage: how much each suite lost from base to aligned."""

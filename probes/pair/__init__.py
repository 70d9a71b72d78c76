"""One probe read in two models: what both encode, with controls and significance."""

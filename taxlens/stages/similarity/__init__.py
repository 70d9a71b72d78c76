"""The similarity stage: how alike the two models' activations are, and along which directions they differ."""

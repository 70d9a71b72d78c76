"""The probe stage: what can be read from the activations of both models, layer by layer."""

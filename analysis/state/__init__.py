"""The state of a lost capability, judged from evidence at each layer."""

"""Scores of choices: prompts, batches, log-probabilities and the metrics made from them."""

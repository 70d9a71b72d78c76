"""What changes from base to aligned beside weights, and has rows of its own: added tokens, which experts are chosen."""

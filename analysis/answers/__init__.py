"""Generated answers: how they are made, whether they are right, and what they cost."""

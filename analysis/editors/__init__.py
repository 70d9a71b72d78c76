"""Ways of buying a lost capability back, each on the same items, with what it saw, what it cost and what it lost."""

"""taxlens: where an aligned model lost capability, in which state it is, and what it costs to get it back."""

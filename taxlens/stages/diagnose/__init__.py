"""The diagnose stage: in which state each lost capability is."""

"""How exact the numbers are: coverage, closure, agreement with references."""

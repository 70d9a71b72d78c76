"""Plans that undo parts of an update, and how much tax and benefit each leaves."""

"""Checks of the house itself: sizes of files and functions, and the wheel in an empty environment."""

"""Intervals, tests, tails and ratios: every statistic that a table states."""

"""Capture: from a pair and its suites to a store, in batches of bounded memory."""

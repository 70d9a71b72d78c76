"""Logs of evaluation harnesses as suites with their measured tax."""

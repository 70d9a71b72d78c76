"""The report: one HTML file that opens with the answer."""

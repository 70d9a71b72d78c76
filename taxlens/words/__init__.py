"""Words that the terminal, the report and the paper share: amounts in their units, LaTeX, and the row that a suite is told by."""

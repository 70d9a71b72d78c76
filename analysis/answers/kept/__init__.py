"""Generated answers as they are kept and read again: files that a killed run takes up, and suites made of answers."""

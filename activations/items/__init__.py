"""Items and suites: reading, checking, sampling and splitting them, and turning them into tokens."""

"""The editors themselves, by what they work on."""

"""Tables that read an attribution: its singular triples, its significance, and how seeds agree."""

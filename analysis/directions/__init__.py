"""Names for directions: the tokens, probes and items that go with one."""

"""Sites of the network, the hooks that read them, and the check that the hooks read what the model computes."""

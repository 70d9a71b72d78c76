"""What the names in a config stand for: models, adapters, suites, chains of checkpoints."""

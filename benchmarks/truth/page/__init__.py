"""The page docs/proving-ground.md: its tables, figures and sentences, made from results."""

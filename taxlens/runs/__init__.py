"""A run: a folder with its manifest, and the stages that fill it."""

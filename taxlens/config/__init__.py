"""The config of a run: its sections, their defaults, and how a YAML file becomes one."""

"""The embedded world: small models whose tax is known by construction, and suites to measure it with.

Light to import; the tokenizer and the item generators load when they are used.
"""

from __future__ import annotations

from taxlens.demo.catalogue import demo_config, model_names, resolve, resolve_suite, suite_names, truth

__all__ = ["demo_config", "model_names", "resolve", "resolve_suite", "suite_names", "truth"]

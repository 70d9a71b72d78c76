"""Suites for real models, written here and licence-free: `suite:NAME`, each of 150 items or more, with groups."""

from __future__ import annotations

from taxlens.suites.embedded import PREFIX, load, names

__all__ = ["PREFIX", "load", "names"]

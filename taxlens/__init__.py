"""taxlens: where an aligned model lost capability, in which state it is, and what it costs to get it back.

Nothing heavy is imported before a name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from taxlens.core.lazy import Lazy, draw_results_by

draw_results_by(Lazy("taxlens.stages.figures.drawing:draw_result"))

_HOME = {
    "Activations": "taxlens.face.activations",
    "Asking": "taxlens.activations.models.chat_templates",
    "Direction": "taxlens.core.direction",
    "Item": "taxlens.activations.items.items",
    "Pair": "taxlens.face.pair",
    "Run": "taxlens.runs.folder",
    "Suite": "taxlens.activations.items.items",
    "TaxlensError": "taxlens.core.errors",
    "check_model": "taxlens.face.check",
    "compare": "taxlens.face.comparison",
    "load_pair": "taxlens.face.open_pair",
    "open_activations": "taxlens.face.activations",
    "open_run": "taxlens.face.comparison",
    "run": "taxlens.runs.running",
    "suite": "taxlens.face.open_suite",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from taxlens.activations.items.items import Item as Item
    from taxlens.activations.items.items import Suite as Suite
    from taxlens.activations.models.chat_templates import Asking as Asking
    from taxlens.core.direction import Direction as Direction
    from taxlens.core.errors import TaxlensError as TaxlensError
    from taxlens.face.activations import Activations as Activations
    from taxlens.face.activations import open_activations as open_activations
    from taxlens.face.check import check_model as check_model
    from taxlens.face.comparison import compare as compare
    from taxlens.face.comparison import open_run as open_run
    from taxlens.face.open_pair import load_pair as load_pair
    from taxlens.face.open_suite import suite as suite
    from taxlens.face.pair import Pair as Pair
    from taxlens.runs.folder import Run as Run
    from taxlens.runs.running import run as run


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("taxlens")
    if name not in _HOME:
        raise AttributeError(f"module 'taxlens' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

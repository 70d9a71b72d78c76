"""Functions named before they are imported, so that what names them stays light."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Lazy:
    """A function by its place, imported when it is called.

    Args:
        place: "package.module:name".

    Example:
        >>> Lazy("json:dumps")([1])
        '[1]'
    """

    place: str

    def load(self) -> Any:
        """Import the module and return what is named.

        Raises:
            AttributeError: the module has no such name.
        """
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.load()(*arguments, **options)


_DRAW: dict[str, Lazy] = {}


def draw_results_by(place: Lazy) -> None:
    """Let every result draw itself by the function at a place; the package's front says so once."""
    _DRAW["draw"] = place


def drawer() -> Lazy:
    """Return what draws results: called with the figure's name, the result's table, and options."""
    return _DRAW["draw"]

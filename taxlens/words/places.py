"""Paths as pages print them: without the folders of the machine that they were made on."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


def short_place(value: Any) -> Any:
    """Return an absolute path as its last two parts behind "..."; anything else, and lists and mappings of it, as it is.

    Example:
        >>> short_place("/home/someone/models/base")
        '.../models/base'
        >>> short_place({"base": "models/base", "layers": 4})
        {'base': 'models/base', 'layers': 4}
    """
    if isinstance(value, dict):
        return {key: short_place(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [short_place(each) for each in value]
    if not isinstance(value, str):
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() and len(path.parts) > 1 and "\n" not in value:
            return "/".join(("...", *path.parts[1:][-2:]))
    return value

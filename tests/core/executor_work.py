"""What the executor's tests do to a piece, in worker processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.core.errors import TaxlensError


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make a worker ready; leaves a mark for each worker that was."""
    folder = Path(request["folder"])
    (folder / f"worker-{os.getpid()}").touch()
    return request


def square(request: dict[str, Any], piece: int) -> dict[str, Any]:
    """The square of a number; leaves a mark for each time that it was worked out."""
    folder = Path(request["folder"])
    with open(folder / f"piece-{piece}", "a") as stream:
        stream.write("x")
    if piece == request.get("dies") and len((folder / f"piece-{piece}").read_text()) <= request.get("times", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == request.get("fails"):
        raise TaxlensError("this piece cannot be done.")
    return {"square": piece * piece, "array": np.arange(piece) / 3, "worker": ("said", float("nan"))}

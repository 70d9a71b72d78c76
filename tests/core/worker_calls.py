"""What the tests of workers ask them to do."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from taxlens.core.errors import ItemError
from taxlens.core.executors.supervisor import WorkerSigns, WorkOverError
from taxlens.core.shared_work import SharedFolder, shared, sharing


def squares(told: dict[str, Any], rank: int) -> None:
    """Square the numbers as one of several workers; die or fail where that is asked for."""
    folder = Path(told["folder"])
    check = WorkerSigns(folder, rank, folder / "over").check

    def square(n: int) -> int:
        tries = folder / f"tries-{n}"
        tries.write_text((tries.read_text() if tries.exists() else "") + "x")
        if n == told.get("dies") and len(tries.read_text()) <= told.get("times", 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if n == told.get("fails"):
            raise ItemError("this piece cannot be done.")
        return n * n

    part = SharedFolder(folder / "pieces", "request", rank=rank, count=told["count"], check=check)
    try:
        with sharing(part):
            list(shared("squares", told["numbers"], square))
    except WorkOverError:
        return

"""SIGINT and SIGTERM as one thing: the work is cancelled, whatever the code that was hit makes of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_state = {"interrupted": False}
_resume = {"command": ""}


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt inside the block at SIGTERM as at SIGINT, and remember that one came.

    Some libraries turn an interrupt into an error of their own, or drop it: `interrupted` and `check_interrupted` know
    better. Outside the main thread nothing changes.
    """
    _state["interrupted"] = False
    _resume["command"] = ""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _state["interrupted"] = False
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def resumed_by(command: str) -> None:
    """Remember the command that goes on with what is under way, for whoever tells of an interrupt."""
    _resume["command"] = command


def resume_command() -> str:
    """Return the command that goes on with what was interrupted; blank: nothing was begun."""
    return _resume["command"]


def interrupted(error: BaseException | None = None) -> bool:
    """Whether the work was interrupted: by a signal, whatever was raised for it, or by KeyboardInterrupt."""
    return _state["interrupted"] or isinstance(error, KeyboardInterrupt)


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal came and was dropped on the way."""
    if _state["interrupted"]:
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    _state["interrupted"] = True
    raise KeyboardInterrupt

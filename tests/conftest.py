"""Guards over the whole suite: no test reaches the network, runs a checkpoint's code, or reads standard input."""

from __future__ import annotations

import ipaddress
import os
import sys
import tempfile
from pathlib import Path

import pytest

os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")  # read at import

_seen: list[str] = []
_temporary = str(Path(tempfile.gettempdir()).resolve())
_own = str(Path(__file__).resolve().parents[1])


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a socket of the file system
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")


def _is_foreign(code: object) -> bool:
    """Whether code comes from a file that a test wrote, as a checkpoint's own code would."""
    name = getattr(code, "co_filename", "")
    mine = name.startswith(_own) or "site-packages" in name
    return "transformers_modules" in name or (name.startswith(_temporary) and not mine)


def _guard(event: str, arguments: tuple) -> None:
    if event == "socket.connect" and not _is_local(arguments[1]):
        _seen.append(f"connect to {arguments[1]}")
        raise ConnectionRefusedError(f"tests do not reach the network: {arguments[1]}")
    if event == "socket.getaddrinfo" and not _is_local((arguments[0] or "localhost",)):
        _seen.append(f"look-up of {arguments[0]}")
        raise ConnectionRefusedError(f"tests do not reach the network: {arguments[0]}")
    if event == "builtins.input":
        _seen.append("question on standard input")
        raise EOFError("tests answer no question")
    if event == "exec" and _is_foreign(arguments[0]):
        _seen.append(f"code of {arguments[0].co_filename}")
        raise PermissionError(f"tests run no foreign code: {arguments[0].co_filename}")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def nothing_foreign(request: pytest.FixtureRequest):
    """Fail a test that met the network, a checkpoint's code or standard input, even where the error was swallowed."""
    _seen.clear()
    yield _seen
    if not request.node.get_closest_marker("guard_trips"):
        assert _seen == [], f"the test reached out: {_seen}"
    _seen.clear()


_open_ends: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def every_run_is_asked_whether_it_closes():
    """Look at each run when it ends, before a test can change its tables."""
    from taxlens.runs.folder import Run

    finish = Run.finish

    def finished(self: Run, status: str, **more: object) -> None:
        finish(self, status, **more)
        if status == "success":
            from tests.closure_guard import open_ends

            _open_ends.extend(f"{self.folder}: {told}" for told in open_ends(self.folder))

    Run.finish = finished
    yield
    Run.finish = finish


@pytest.fixture(autouse=True)
def attributions_close_on_the_measured_tax(every_run_is_asked_whether_it_closes):
    """Fail a test that made a run, itself or by a fixture, whose closure.csv speaks of another tax than tax.csv."""
    yield
    told = list(_open_ends)
    _open_ends.clear()
    assert told == [], "\n".join(told)

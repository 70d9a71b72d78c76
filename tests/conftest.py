"""Guards over the whole suite: no test, and no process that it starts, reaches the network, runs foreign code or asks."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

import pytest

os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")  # read at import

_FOLDER = str(Path(__file__).resolve().parent / "guards")
_OTHERS = Path(tempfile.gettempdir()) / f"taxlens-tests-{os.getpid()}.seen"
os.environ["TAXLENS_TESTS_SEEN"] = str(_OTHERS)
if _FOLDER not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_FOLDER, os.environ.get("PYTHONPATH"))))
if getattr(sys.modules.get("sitecustomize"), "__file__", None) != f"{_FOLDER}/sitecustomize.py":
    sys.path.insert(0, _FOLDER)
    sys.modules.pop("sitecustomize", None)
    importlib.import_module("sitecustomize")
    sys.path.remove(_FOLDER)
guards = sys.modules["sitecustomize"]


def _elsewhere() -> list[str]:
    """What processes met that tests started; forgotten once it is read."""
    try:
        lines = _OTHERS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    _OTHERS.unlink()
    return [line for line in lines if line not in guards.seen]


@pytest.fixture(autouse=True)
def nothing_foreign(request: pytest.FixtureRequest):
    """Fail a test that met the network, a checkpoint's code or standard input, even where the error was swallowed."""
    guards.seen.clear()
    _elsewhere()
    yield guards.seen
    met = [*guards.seen, *_elsewhere()]
    guards.seen.clear()
    if not request.node.get_closest_marker("guard_trips"):
        assert met == [], f"the test reached out: {met}"


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
def attributions_close_on_the_measured_tax(request, every_run_is_asked_whether_it_closes):
    """Fail a test that made a run, itself or by a fixture, whose closure.csv speaks of another tax than tax.csv."""
    yield
    told = list(_open_ends)
    _open_ends.clear()
    if not request.node.get_closest_marker("made_up_tables"):
        assert told == [], "\n".join(told)

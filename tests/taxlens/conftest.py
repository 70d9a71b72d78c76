"""Whole tables for tests that are about a few columns; a place for commands that must be refused, and how."""

import re
import time
from pathlib import Path

import pandas as pd
import pytest

from taxlens.cli.app import run_app
from taxlens.stages import TABLES

FILLED = {str: "x", float: 0.0, int: 0, bool: True}


def filled(name, frame):
    table = TABLES[name]
    missing = {c: table.columns[c] for c in table.required if c not in frame}
    made = {c: None if column.blank else FILLED[column.type] for c, column in missing.items()}
    if "item" in made and "item" in table.key:
        made["item"] = [f"i{n}" for n in range(len(frame))]
    return frame.assign(
        **{c: pd.Series(v, index=frame.index, dtype=object) if v is None else v for c, v in made.items()}
    )


@pytest.fixture(scope="session")
def put():
    def write(run, name, frame):
        run.write(TABLES[name], filled(name, frame))

    return write


@pytest.fixture(scope="session")
def take_away():
    """Make a run one that never had a table."""

    def remove(run, name):
        (run.folder / "tables" / f"{name}.csv").unlink()
        for entry in run.manifest["stages"].values():
            entry["outputs"].pop(f"tables/{name}.csv", None)
        run.save()

    return remove


SUITE = '{"id": "a", "group": "g", "prompt": "The", "choices": [" cat", " dog"], "gold": 0}\n'
CONFIG = """name: bad
pair: {base: demo:base, aligned: demo:planted}
suites: [{name: facts, file: facts.jsonl}]
templates: [plain]
stages: [tax]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "facts.jsonl").write_text(SUITE, encoding="utf-8")
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def refused(capsys):
    """Run a command line that must be refused, in one screen, within seconds; returns what was said."""

    def check(arguments, *, codes=(1, 2, 3)):
        started = time.monotonic()
        code = run_app(arguments)
        said = capsys.readouterr().err
        assert code in codes, said
        assert said.strip()
        assert "Traceback" not in said
        assert "did not foresee" not in said, Path(said.split("traceback")[1].split()[0]).read_text()
        assert "\x1b" not in said.replace("\x1b[", "", 0) or arguments[0] == "nothing"
        assert len(said) < 6000
        assert time.monotonic() - started < 60
        return said

    return check


NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(scope="session")
def parts_add_up():
    """Check that the parts of the sentences that split a whole add to it, to the printed digit; returns how many did."""

    def check(paragraph):
        checked = 0
        for sentence in re.split(r"(?<=[.)]) (?=[A-Z])", paragraph):
            if sentence.startswith(("Of the", "From base")):
                whole, *parts = [float(n) for n in NUMBER.findall(re.sub(r"\d+\.(?:mlp|attn|norm)\b", "", sentence))]
                assert sum(parts) == pytest.approx(whole, abs=1e-9), sentence
                checked += 1
        return checked

    return check

"""Stopping a run: SIGTERM is SIGINT, both are told as cancelled, whatever the code that was hit makes of it."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from taxlens.cli.app import run_app
from taxlens.core.interrupts import check_interrupted, interrupted, interruptible
from taxlens.runs import running
from taxlens.runs.folder import Run
from taxlens.stages import STAGES

CONFIG = "name: s\npair: {base: a, aligned: b}\nsuites: [{name: facts, file: f.jsonl}]\nstages: [tax, report]\n"


@pytest.fixture
def run_with(tmp_path, monkeypatch, put):
    """run_with(compute) -> exit code of a run whose first stage is that function, and the run."""
    from dataclasses import replace

    def go(compute):
        def last(job, section):
            put(job.run, "tax", pd.DataFrame({"tax": [0.1]}))

        small = (replace(s, compute=c, figures=()) for s, c in zip((STAGES[0], STAGES[-1]), (compute, last)))
        monkeypatch.setattr(running, "STAGES", tuple(small))
        (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
        code = run_app(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "r"), "--json"])
        return code, Run.open(tmp_path / "r").manifest

    return go


def plainly(job, section):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def by_interrupt(job, section):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def turned_into_another_error(job, section):
    """As matplotlib does: an interrupt inside a path comes out as a ValueError."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except KeyboardInterrupt:
        raise ValueError("Invalid bounding box") from None


def swallowed(job, section):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        pass


@pytest.mark.parametrize("compute", [plainly, by_interrupt, turned_into_another_error, swallowed])
def test_a_signal_cancels_the_run_and_is_told_with_how_to_go_on(run_with, compute, capsys, tmp_path):
    code, manifest = run_with(compute)
    assert code == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"interrupted. What is finished is kept. Go on with: taxlens run {tmp_path / 'r'} --resume"
    assert manifest["status"] == "cancelled"
    assert manifest["stages"]["tax"]["status"] == "cancelled"
    assert "report" not in manifest["stages"]


def test_an_error_without_a_signal_is_no_interruption(run_with, capsys):
    def fail(job, section):
        raise ValueError("Invalid bounding box")

    code, manifest = run_with(fail)
    assert code == 1
    assert manifest["status"] == "error"
    assert "Invalid bounding box" in capsys.readouterr().err


def test_handlers_are_put_back_and_the_state_forgotten():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            check_interrupted()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not interrupted()


def test_a_process_that_is_terminated_says_so(tmp_path):
    code = "import time, sys\nfrom taxlens.core.interrupts import interruptible\n"
    code += "with interruptible():\n    try:\n        print('up', flush=True)\n        time.sleep(30)\n"
    code += "    except KeyboardInterrupt:\n        sys.exit(130)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n", process.stderr.read()
        process.terminate()
        assert process.wait(timeout=30) == 130

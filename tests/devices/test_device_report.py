"""The device report does all its steps on a small pair, and says so where one cannot be done."""

from __future__ import annotations

import json

import torch

from benchmarks.device import Report, run


def test_every_step_of_both_pairs_has_its_numbers(tmp_path):
    rows = run(tmp_path, tiny=True)
    assert [row.said for row in rows if row.said.startswith(("failed", "not begun"))] == []
    assert len(rows) == 16
    assert all(row.seconds > 0 for row in rows)
    assert all(row.share > 0 for row in rows if row.step in ("bare forward", "score", "one path node"))
    told = json.loads((tmp_path / "device.json").read_text())
    assert len(told["rows"]) == 16
    assert (tmp_path / "device.md").read_text().count("| tiny") == 16


def test_a_step_that_fails_and_one_without_time_say_so():
    def broken():
        raise RuntimeError("CUDA out of memory")

    report = Report(torch.device("cpu"), 1e9, minutes=1)
    report.step(("8B", "full"), "score", broken)
    report.end = 0.0
    report.step(("8B", "full"), "node", broken)
    assert [row.said for row in report.rows] == ["failed: CUDA out of memory", "not begun: the time was used up"]

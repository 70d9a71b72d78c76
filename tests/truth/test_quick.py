"""The quick proving ground, from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quick_proving_ground_writes_its_page_and_goes_on_from_its_cache(tmp_path):
    (tmp_path / "docs").mkdir()
    settings = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.truth", "--quick"]
    subprocess.run(command, cwd=tmp_path, env=settings, check=True, capture_output=True)
    page = (tmp_path / "docs" / "proving-ground.md").read_text(encoding="utf-8")
    assert "Made by `python -m benchmarks.truth --quick`" in page
    assert "0 of 3 (0.0%" in page
    assert (tmp_path / "docs" / "figures" / "proving-ground-methods.png").stat().st_size > 10_000
    kept = sorted((tmp_path / ".cache" / "truth" / "results").iterdir())
    subprocess.run([*command, "--ready"], cwd=tmp_path, env=settings, check=True, capture_output=True)
    assert sorted((tmp_path / ".cache" / "truth" / "results").iterdir()) == kept

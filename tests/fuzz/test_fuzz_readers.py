"""Fuzzing of everything that reads a stranger's file: an error of taxlens or a value, never another exception, never a hang.

Each target takes bytes. Here hypothesis makes them, from nothing and by damaging the committed corpus (`corpus/`), for
seconds; `python -m benchmarks.house.fuzz --minutes 10 TARGET` does it for as long as one likes.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.house.fuzz import CORPUS, TARGETS, damaged

EXAMPLES = {"store": 25, "template": 20}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read_or_refused(name, tmp_path):
    seeds = sorted((CORPUS / name).iterdir())
    assert seeds
    for seed in seeds:
        TARGETS[name](seed.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]

    @settings(
        max_examples=EXAMPLES.get(name, 60), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, len(seeds) - 1), st.integers(0, 2**32 - 1))
    def check(which, dice):
        TARGETS[name](damaged(seeds[which], dice), tmp_path)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_noise_is_read_or_refused(name, tmp_path):
    @settings(
        max_examples=EXAMPLES.get(name, 60) // 3, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.binary(max_size=300))
    def check(data):
        TARGETS[name](data, tmp_path)

    check()

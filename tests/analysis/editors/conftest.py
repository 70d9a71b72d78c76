"""A task on the small pair that was tuned to refuse."""

import pytest

from taxlens.analysis.editors.held_out import HeldOutMeasure
from taxlens.analysis.editors.task import edit_task


@pytest.fixture(scope="session")
def edit_suites(refusal_suites):
    return list(refusal_suites)


@pytest.fixture(scope="session")
def task(refusal_pair, edit_suites):
    return edit_task(refusal_pair, edit_suites, taxed=["facts"], harm="harm", harmless="harmless")


@pytest.fixture(scope="session")
def held(task, edit_suites):
    return HeldOutMeasure(task, others=[edit_suites[1]], tokens=4)

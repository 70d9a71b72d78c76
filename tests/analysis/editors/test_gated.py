"""A gated model is the edited one where the gate lets through and the aligned one elsewhere; the oracle bounds it."""

import numpy as np
import pytest

from taxlens.analysis.editors.compare import compare_editors
from taxlens.analysis.editors.gated import Gate, decided, fit_gate, gated_frame, gated_values, oracle
from taxlens.analysis.editors.kinds.arithmetic import interpolation
from taxlens.analysis.editors.outcome import nats


@pytest.fixture(scope="module")
def edited(task, held):
    edit = list(interpolation(task, tries=14))[-1]
    with edit.opened() as model:
        return held("interpolated", model)


def test_an_oracle_keeps_all_of_harm_and_returns_what_the_edit_returns(task, held, edited):
    gated = gated_values(held, edited, oracle(task))
    assert nats(held, gated, draws=50)["harm_kept"].value == pytest.approx(1)
    assert nats(held, edited, draws=50)["harm_kept"].value < 0.95
    for name in ("facts", "harmless"):
        assert np.array_equal(gated.choices[name]["margin"], edited.choices[name]["margin"])
    assert np.array_equal(gated.choices["harm"]["margin"], held.aligned.choices["harm"]["margin"])
    assert np.array_equal(gated.distances["kl_base"], edited.distances["kl_base"])


def test_a_gate_that_lets_nothing_through_is_the_aligned_model(task, held, edited):
    shut = {name: np.zeros(len(suite), dtype=bool) for name, suite in task.held.items()}
    gated = gated_values(held, edited, shut)
    for name in task.suites:
        assert np.array_equal(gated.choices[name]["margin"], held.aligned.choices[name]["margin"])
    assert np.array_equal(gated.distances["kl_aligned"], held.aligned.distances["kl_aligned"])


def test_a_fitted_gate_tells_harmful_prompts_from_others(task):
    gate = fit_gate(task)
    through = decided(task, gate)
    assert gate.accuracy >= 0.75
    assert through["harmless"].mean() > through["harm"].mean()


def test_the_cosine_of_the_direction_itself_is_one():
    gate = Gate(0, np.ones(3), np.array([0.0, 2.0, 0.0]), 0.5, 1.0)
    assert gate.cosines(np.array([[1.0, 5.0, 1.0], [1.0, -1.0, 1.0]])) == pytest.approx([1, -1])


def test_a_gated_row_stands_beside_its_twin_that_knows(task, held):
    found = compare_editors(task, ["interpolation", "drop"], held, tries=1, draws=100)
    frame = gated_frame(found, ["interpolation"]).set_index("gate")
    assert list(frame.index) == ["fitted", "oracle"]
    assert frame.loc["oracle", "harm_kept"] == pytest.approx(1)
    assert frame.loc["oracle", "harm_through"] == 0
    assert frame.loc["oracle", "returned"] == pytest.approx(found.row("interpolation").outcome["returned"].value)
    assert 0 <= frame.loc["fitted", "harm_through"] <= 1
    assert frame.loc["fitted", "harm_kept"] <= 1 + 1e-9
    assert gated_frame(found).empty

"""When the adaptive walk stops, on made-up scores (no model): smooth ones early, rough ones late or not at all."""

import numpy as np
import pytest
import torch

from taxlens.analysis.path.adaptive_quadrature import Choices, Walker
from taxlens.analysis.path.contraction import Tally


def walker(slope, *, items=12, metrics=("accuracy", "probability", "nll"), **options):
    """Two components; the gold's score moves by `slope(t)` times each component's share."""
    share = np.random.default_rng(0).dirichlet([1, 1], size=2 * items)
    item, choice = np.repeat(np.arange(items), 2), np.tile([0, 1], items)
    choices = Choices(item, choice, np.zeros(items, dtype=int), np.ones((items, 2)))
    fine = np.polynomial.legendre.leggauss(400)
    move = float(fine[1] / 2 @ np.array([slope((x + 1) / 2) for x in fine[0]]))
    start = np.where(choice == 0, -1.0 - item / items, -2.0)
    taken = []

    def gradient(t):
        taken.append(t)
        rate = np.where(choice == 0, slope(t), 0.0)
        return Tally({"component": torch.tensor(rate[:, None] * share)}), start

    ends = (start, start + np.where(choice == 0, move, 0.0))
    return Walker(gradient, ends, choices, metrics, **options), taken


def test_smooth_scores_close_at_the_first_rule_that_can_be_judged():
    walk, taken = walker(lambda t: -3 + t)
    found = walk.run()
    assert found.closed
    assert len(taken) == found.gradients == 7


def test_scores_with_a_steep_layer_take_a_finer_rule_and_reuse_the_nodes():
    walk, taken = walker(lambda t: -60 * np.exp(-20 * t))
    found = walk.run()
    assert found.closed
    assert found.gradients == len(taken) == len(set(taken)) == 15


def test_rough_scores_are_reported_as_not_closed():
    walk, _ = walker(lambda t: -40.0 * (t > 0.513), max_gradients=15)
    found = walk.run()
    assert not found.closed
    assert "scores at t = 1 are off by" in found.reason


def test_panels_close_where_one_polynomial_does_not():
    rough = lambda t: -40.0 / (1 + ((t - 0.51) / 0.02) ** 2)  # noqa: E731
    assert not walker(rough)[0].run().closed
    wide = walker(rough, max_gradients=300)[0].run()
    assert len(wide.path.rule.panels) > 1
    assert wide.path.end_error() < walker(rough)[0].run().path.end_error()


def test_the_coarser_rule_lies_inside_the_nodes_taken():
    found = walker(lambda t: -3 + t)[0].run()
    tallies, weights = found.coarse
    assert len(tallies) == 5
    assert weights["nll"].shape[0] == 5


def test_a_constant_metric_closes_with_no_effect():
    walk, _ = walker(lambda t: 0.0)
    found = walk.run()
    assert found.closed
    assert found.path.end_error() == 0


def test_tables_of_rows_leave_absent_choices_empty():
    choices = Choices(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0, 0]), np.ones((2, 2)))
    table = choices.table(np.array([1.0, 2.0, 3.0]))
    assert table[0].tolist() == [1, 2]
    assert table[1, 0] == 3
    assert np.isnan(table[1, 1])


@pytest.mark.parametrize("note", ["closed"])
def test_the_state_is_told_after_each_rule(note):
    told = []
    walker(lambda t: -3 + t, note=told.append)[0].run()
    assert told[-1] == note
    assert len([said for said in told if not said.startswith("gradient")]) == 2
    assert "gradient 5 of 7 (at most 32)" in told


def test_the_ends_between_panels_are_checked_against_forward_passes():
    from taxlens.analysis.path.quadrature import panelled

    smooth = lambda t: -3 + t  # noqa: E731
    rule = panelled(3, [0.0, 0.5, 1.0])
    asked = []

    def scores(t, wrong=0.0):
        asked.append(t)
        start = walker(smooth)[0].ends[0]
        move = np.where(np.tile([0, 1], 12) == 0, -3 * t + t**2 / 2 + wrong, 0.0)
        return start + move

    right = walker(smooth, scores=scores)[0].run([rule])
    assert "between panels" not in right.reason
    assert set(asked) == {0.5}
    assert right.forwards == right.gradients + 3
    off = walker(smooth, scores=lambda t: scores(t, wrong=1.0))[0].run([rule])
    assert "t = 0.5, between panels" in off.reason
    assert not off.closed

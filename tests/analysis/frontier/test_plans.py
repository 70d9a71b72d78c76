"""Orders of undoing: what each takes first, what budgets and bounds they keep, and that chance has equal energy."""

import numpy as np
import pytest
import torch

from taxlens.analysis.frontier.plans import (
    Scores,
    Units,
    best_coefficients,
    effect_plans,
    layer_plans,
    random_plans,
    ranked_plans,
    uniform_plans,
)
from taxlens.core.errors import UsageError

N = 200


@pytest.fixture
def units():
    rng = np.random.default_rng(0)
    energy = rng.exponential(size=N) ** 2
    return Units("singular", tuple(f"0.mlp.up.s{i}" for i in range(N)), np.repeat(np.arange(10), 20), energy)


@pytest.fixture
def scores():
    rng = np.random.default_rng(1)
    benefit = np.abs(rng.normal(size=N))
    return Scores(rng.normal(size=N), benefit, float(benefit.sum()))


def test_without_a_benefit_to_keep_the_largest_effects_go_first(scores):
    chosen = best_coefficients(scores, count=7, keep=None)
    assert set(np.flatnonzero(chosen)) == set(np.argsort(-scores.tax)[:7])
    assert chosen.sum() == pytest.approx(7)


def test_a_plan_is_predicted_to_keep_the_benefit_that_is_asked_for(scores):
    free = best_coefficients(scores, count=40, keep=None)
    bound = best_coefficients(scores, count=40, keep=0.95)
    assert free @ scores.benefit > 0.05 * scores.benefit_total
    assert bound @ scores.benefit <= 0.05 * scores.benefit_total + 1e-9
    assert bound @ scores.tax < free @ scores.tax


def test_a_plan_keeps_the_benefit_by_every_estimate_of_it(scores):
    rng = np.random.default_rng(5)
    both = Scores(scores.tax, scores.benefit, scores.benefit_total, local=np.abs(rng.normal(size=N)))
    bound = best_coefficients(both, count=40, keep=0.95)
    one = best_coefficients(scores, count=40, keep=0.95)
    for benefit in both.benefits:
        assert bound @ benefit <= 0.05 * both.benefit_total + 1e-9
    assert one @ both.local > 0.05 * both.benefit_total


def test_a_gain_beyond_reach_is_come_as_near_to_as_can_be(scores):
    rng = np.random.default_rng(7)
    signed = Scores(scores.tax, rng.normal(size=N), 1.0)
    reached = best_coefficients(signed, count=10, keep=1.5)
    assert reached @ signed.benefit <= -0.5 + 1e-9
    beyond = best_coefficients(signed, count=10, keep=1e6)
    assert set(np.flatnonzero(beyond)) == set(np.argsort(signed.benefit)[:10])


def test_units_that_help_are_never_undone(scores):
    chosen = best_coefficients(scores, count=N, keep=None)
    assert (chosen[scores.tax < 0] == 0).all()


def test_at_most_two_coefficients_are_fractional(scores):
    chosen = best_coefficients(scores, count=20.5, keep=0.9)
    assert ((chosen > 0) & (chosen < 1)).sum() <= 2


def test_plans_count_units_and_energy(units, scores):
    plan = effect_plans(units, scores, order="path", shares=[0.05], keep=None)[0]
    assert plan.name == "path-5%"
    assert plan.n_units == 10
    assert plan.share_undone == pytest.approx(0.05)
    chosen = [units.names.index(name) for name in plan.undo]
    assert plan.energy_undone == pytest.approx(units.energy[chosen].sum() / units.energy.sum())


def test_random_plans_have_the_energy_of_the_plan_they_stand_beside(units, scores):
    path = effect_plans(units, scores, order="path", shares=[0.025, 0.1], keep=None)
    drawn = random_plans(units, path, draws=20, seed=0)
    assert [plan.name for plan in drawn[:2]] == ["random-2.5%-d00", "random-2.5%-d01"]
    for plan in drawn:
        like = path[0] if plan.name.startswith("random-2.5%") else path[1]
        assert plan.energy_undone == pytest.approx(like.energy_undone, rel=0.021)
    assert len({tuple(plan.undo) for plan in drawn}) == 40


def test_random_plans_are_the_same_for_the_same_seed(units, scores):
    path = effect_plans(units, scores, order="path", shares=[0.05], keep=None)
    first, again, other = (random_plans(units, path, draws=3, seed=s) for s in (0, 0, 1))
    assert [p.undo for p in first] == [p.undo for p in again]
    assert [p.undo for p in first] != [p.undo for p in other]


def test_magnitude_takes_the_largest_and_smallest_the_least(units):
    large = ranked_plans(units, units.energy, order="magnitude", shares=[0.01])[0]
    small = ranked_plans(units, -units.energy, order="smallest", shares=[0.01])[0]
    assert large.energy_undone > 100 * small.energy_undone


def test_a_uniform_plan_undoes_everything_in_part(units):
    plan = uniform_plans(units, [0.5])[0]
    assert plan.n_units == N
    assert plan.energy_undone == pytest.approx(0.25)


def test_layer_plans_have_one_coefficient_a_layer_and_the_energy_asked_for(units, scores):
    path = effect_plans(units, scores, order="path", shares=[0.1], keep=None)
    plans = layer_plans(units, scores, like=path, keep=None, extra=(0.2,))
    assert [plan.name for plan in plans] == ["per_layer-10%", "per_layer-energy0.2"]
    for plan, energy in zip(plans, (path[0].energy_undone, 0.2)):
        by_layer = [{plan.undo.get(units.names[i], 0.0) for i in np.flatnonzero(units.layers == k)} for k in range(10)]
        assert all(len(one) == 1 for one in by_layer)
        assert plan.energy_undone <= energy + 1e-6


def test_a_suite_can_be_left_out_of_the_scores():
    by_suite = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 3.0])}
    scores = Scores(by_suite["a"] + by_suite["b"], np.zeros(2), 1.0, by_suite)
    assert scores.without("b").tax.tolist() == [1.0, 0.0]


def test_a_share_above_one_is_refused(units, scores):
    with pytest.raises(UsageError, match="share of units"):
        effect_plans(units, scores, order="path", shares=[1.5], keep=None)


def test_a_plan_keeps_harm_alone_where_the_benefit_is_a_difference(scores):
    rng = np.random.default_rng(9)
    harm = np.abs(rng.normal(size=N))
    hidden = Scores(scores.tax, harm - harm, 1.0)  # what is lost on harm is won on harmless prompts: a gap of 0
    told = Scores(scores.tax, harm - harm, 1.0, harm=harm, harm_total=float(harm.sum()))
    free, bound = (best_coefficients(s, count=40, keep=0.95) for s in (hidden, told))
    assert free @ harm > 0.05 * harm.sum()
    assert bound @ harm <= 0.05 * harm.sum() + 1e-9


def test_a_training_too_large_for_the_device_goes_to_the_host_and_one_too_large_for_both_is_refused(monkeypatch):
    from taxlens.analysis.frontier.trained_plans import home_of, training_bytes

    weights = [torch.zeros(10, 10, dtype=torch.bfloat16), torch.zeros(10)]
    needed = training_bytes(weights)
    assert needed == 100 * (2 + 12) + 10 * (4 + 8)
    monkeypatch.setattr("taxlens.core.memory.available_memory", lambda: 2 * needed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed // 2, needed))
    assert home_of(torch.device("cuda", 0), needed) == torch.device("cpu")
    assert home_of(torch.device("cuda", 0), needed // 4) is None
    assert home_of(torch.device("cpu"), needed) is None
    for device in ("cuda:0", "cpu"):
        with pytest.raises(UsageError, match=r"(?s)training the changed weights.*relearn: false"):
            home_of(torch.device(device), 3 * needed)

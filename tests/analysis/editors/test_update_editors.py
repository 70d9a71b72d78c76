"""Editors of the update's units: the differentiable model, the programme, and rules with a known answer."""

import numpy as np
import pytest
import torch

from taxlens.analysis.editors.kinds.alignment_data import group_ratios, layer_groups, localize
from taxlens.analysis.editors.kinds.attributed import TradeOffs, solved, surgery_factors
from taxlens.analysis.editors.kinds.optimise import Adam, Schedule, schedule_for
from taxlens.analysis.editors.kinds.protected_delta import protect
from taxlens.analysis.editors.kinds.unit_model import unit_model
from taxlens.analysis.editors.objective import Objective, Prices
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of
from tests.kept_weights import same_weights, untouched

IDS = torch.tensor([[1, 9, 12, 30, 8], [1, 20, 21, 22, 23]])


@pytest.mark.parametrize("level", ["singular", "component", "head"])
def test_the_differentiable_model_is_the_mixture(refusal_pair, level):
    names = [n for n, u in difference_of(refusal_pair).units(level).items() if difference_of(refusal_pair).moved(u)]
    undo = torch.tensor(np.random.default_rng(0).uniform(-0.5, 1.5, len(names)))
    kept = untouched(refusal_pair.aligned.model)
    with mixture(refusal_pair, dict(zip(names, undo.tolist()))) as model:
        wanted = model(input_ids=IDS).logits
    with unit_model(refusal_pair, names, lambda: undo, level=level) as model:
        got = model(input_ids=IDS).logits
    assert torch.allclose(got, wanted, atol=2e-4)
    assert same_weights(refusal_pair.aligned.model, kept)


def test_the_slope_by_a_coefficient_is_the_finite_difference(task):
    names = [n for n in difference_of(task.pair).units("singular") if ".mlp.down." in n][:4]
    objective = Objective(task, foils=9)
    chosen = {name: [0, 1, 2] for name in task.suites}
    undo = torch.full((len(names),), 0.3, dtype=torch.float64, requires_grad=True)  # off the hinge's corner

    def loss(value: torch.Tensor) -> float:
        with unit_model(task.pair, names, lambda: value, level="singular") as model:
            return objective.backward(model, chosen, Prices(harm=2.0))

    loss(undo)
    step = torch.zeros(len(names), dtype=torch.float64)
    step[0] = 0.01
    with torch.no_grad():
        slope = (loss(undo.detach() + step) - loss(undo.detach() - step)) / 0.02
    assert float(undo.grad[0]) == pytest.approx(slope, rel=0.05, abs=1e-4)


def test_the_loss_of_the_aligned_model_has_no_hinge_and_one_unit_of_choice(task):
    objective = Objective(task, foils=9)
    items = {task.harm: list(range(len(task.train[task.harm])))}
    hinge = objective.backward(task.pair.aligned.model, items, Prices(harm=1.0))
    assert hinge == pytest.approx(0, abs=1e-4)
    items = {"facts": list(range(len(task.train["facts"])))}
    choice = objective.backward(task.pair.aligned.model, items, Prices())
    assert choice == pytest.approx(1, rel=0.02) or objective.scale == 0.1
    before = objective.backward(task.pair.base.model, {task.harm: [0, 1, 2]}, Prices(harm=1.0))
    assert before > 0.5


def test_bounds_hold_harm_alone_where_the_gap_would_allow_more():
    tax, harm, harmless = np.array([1.0, 1.0, 1.0]), np.array([5.0, 0.5, 0.0]), np.array([5.0, 0.0, 0.0])
    effects = TradeOffs(tax, harm, harmless, 10.0)
    undone = solved(tax, [effects], 0.95)  # half a nat may go: unit 0 loses as much as it wins, its gap is 0
    assert undone.tolist() == pytest.approx([0, 1, 1]) or undone.tolist() == pytest.approx([0.1, 0, 1])
    assert float(harm @ undone) <= 0.5 + 1e-9
    free = solved(tax, [TradeOffs(tax, harm - harmless, np.zeros(3), 10.0)], 0.95)  # the sum of both in harm's place
    assert float(harm @ free) > 5


def test_a_second_look_moves_by_the_radius_and_loses_nothing_more():
    tax, harm = np.array([1.0, -1.0]), np.array([1.0, 1.0])
    moved = solved(tax, [TradeOffs(tax, harm, np.zeros(2), 10.0)], 0.95, around=np.array([0.5, 0.5]))
    assert moved.tolist() == pytest.approx([0.75, 0.25])


def test_surgery_factors_are_the_published_ones():
    g, sigma = np.arange(1.0, 11.0), np.ones(10)
    raw = surgery_factors(g, sigma, signed=False, rescale=False)
    assert raw.tolist() == [0.8, 0.8, 1, 1, 1, 1, 1, 1, 1.25, 1.25]
    assert surgery_factors(g, sigma, signed=False).sum() == pytest.approx(10)
    signed = surgery_factors(np.array([-1.0, 1.0]), np.ones(2), signed=True, rescale=False)
    assert signed.tolist() == pytest.approx([np.exp(0.2), np.exp(-2.0)])


def test_layer_ratios_keep_their_mean_whatever_is_learned():
    for theta in (torch.zeros(3), torch.tensor([5.0, -5.0, 1.0])):
        ratios = group_ratios(theta, 0.2)
        assert float(ratios.mean()) == pytest.approx(0.2)
    assert ratios[0] > ratios[1]
    assert layer_groups(np.arange(30), 30, 3).tolist() == [0] * 8 + [1] * 8 + [2] * 14
    assert layer_groups(np.arange(32), 32, 3).tolist() == [0] * 11 + [1] * 10 + [2] * 11
    assert len(set(layer_groups(np.arange(6), 6, None))) == 6


def test_a_high_price_leaves_no_unit_and_energy_says_so(task):
    edits = {edit.label: edit for edit in localize(task, tries=4)}
    kept = [1 - len(edits[f"price {p}"].undo) / edits["price 1"].free for p in ("0.3", "10")]
    assert kept[0] >= kept[1]
    assert 0 <= edits["price 10"].energy <= 1


def test_protected_columns_are_the_least_sensitive_first():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 20, generator=generator) * torch.linspace(0.1, 3, 20)
    d = torch.ones(6, 20)
    assert not bool(protect(d, x, 0.0).any())
    kept = protect(d, x, 1e9)
    assert bool((kept[:, :17].abs() > 0.9).all())  # all but the 15 % most sensitive columns
    few = (protect(d, x, 2000.0) - 1).abs() < 0.05
    counts = few.sum(0)
    assert counts[0] == 6
    assert counts[16] < 6


def test_compensation_lowers_what_the_outputs_feel():
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(2000, 3, generator=generator)
    x = shared @ torch.randn(3, 24, generator=generator) + 0.05 * torch.randn(2000, 24, generator=generator)
    d = torch.randn(5, 24, generator=generator)
    size = 300.0
    balanced = protect(d, x, size)
    plain = torch.where((balanced - d).abs() < 1e-5, d, torch.zeros_like(d))
    taken = protect(d, torch.eye(24)[torch.randint(24, (2000,), generator=generator)], size)
    assert float((x @ balanced.T).norm()) < 0.9 * float((x @ d.T).norm())
    assert plain.shape == taken.shape


def test_steps_never_move_further_than_the_rate_and_stay_within_bounds():
    values = torch.zeros(3, requires_grad=True)
    adam = Adam(values, (-0.5, 1.5))
    for _ in range(40):
        before = values.detach().clone()
        (values * torch.tensor([1.0, -100.0, 0.0])).sum().backward()
        adam.step(0.06)
        assert float((values.detach() - before).abs().max()) <= 0.06 + 1e-6
    assert values.tolist() == pytest.approx([-0.5, 1.5, 0.0])


def test_a_schedule_has_a_stage_a_setting_and_prices_fall():
    assert [len(schedule_for(n).stages) for n in (2, 3, 5)] == [2, 3, 5]
    prices = [price for _, price in schedule_for(4).stages]
    assert prices == sorted(prices, reverse=True)
    schedule = Schedule()
    assert schedule.rate_at(1) < schedule.rate_at(5) == schedule.rate
    assert schedule.rate_at(schedule.steps) == pytest.approx(schedule.rate / 10)

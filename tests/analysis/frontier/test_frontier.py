"""The frontier on a small pair that was tuned to refuse: chosen on one half, measured on the other, resumable."""

import numpy as np
import pandas as pd
import pytest

from taxlens.activations.items.items import Suite
from taxlens.activations.models.prompts import Prompting, one_prompting
from taxlens.analysis.frontier.frontier_tables import FRONTIER, FRONTIER_MATCHED
from taxlens.analysis.frontier.measure import frontier, frontier_cost
from taxlens.analysis.weights.gradients import first_order_loss, weight_slopes
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import ItemError, UsageError
from tests.kept_weights import same_weights, untouched

ORDERS = ("path", "one_gradient", "magnitude", "smallest", "random", "uniform", "per_layer", "reverse")
OPTIONS = {"benefit": "harm", "against": "harmless", "shares": (0.05, 0.2), "draws": 3, "bootstrap": 200}


@pytest.fixture(scope="module")
def front(refusal_pair, refusal_suites):
    return frontier(refusal_pair, refusal_suites, orders=ORDERS, uniform=(0.25, 0.5, 1.0), **OPTIONS)


def test_only_the_suite_that_lost_is_taxed_and_the_other_is_named(front):
    assert front.taxed == ("facts",)
    assert any("sums is not among the taxed suites" in note for note in front.notes)


def test_undoing_everything_returns_all_of_the_tax_and_all_of_the_benefit(front):
    assert front.returned("uniform-1").value == pytest.approx(1, abs=1e-3)
    assert front.benefit_kept("uniform-1").value == pytest.approx(0, abs=1e-3)


def test_path_returns_more_than_chance_of_equal_energy_and_than_its_reverse(refusal_pair, refusal_suites):
    orders = ("path", "random", "reverse")
    free = frontier(refusal_pair, refusal_suites, orders=orders, keep=None, **(OPTIONS | {"shares": (0.1,)}))
    chance = [free.returned(plan.name).value for plan in free.plans if plan.order == "random"]
    assert free.returned("path-10%").value > max(chance)
    assert free.ahead("path-10%", "reverse-10%").low > 0


def test_the_benefit_that_path_was_asked_to_keep_is_predicted(front):
    for plan in ("path-5%", "path-20%"):
        middle, low, high = front.predicted_benefit[plan]
        assert 0.95 - 1e-6 <= low <= middle <= high
    row = front.to_frame().query("plan == 'path-20%'").iloc[0]
    assert (row.benefit_predicted_low, row.benefit_predicted_high) == front.predicted_benefit["path-20%"][1:]


def test_the_table_has_the_columns_of_the_contract(front):
    frame = front.to_frame()
    assert tuple(frame.columns) == FRONTIER.names
    assert set(frame.order) == set(ORDERS)
    assert (frame[frame.order == "random"].draw >= 0).all()
    whole = frame[(frame.plan == "path-20%") & (frame.suite == "")].iloc[0]
    assert whole.returned == pytest.approx(front.returned("path-20%").value)
    assert whole.tax == pytest.approx(frame[(frame.plan == "path-20%") & (frame.suite == "facts")].tax.iloc[1])
    assert set(frame.held_out) <= {"items", "answers"}


def test_halves_share_neither_group_nor_answer(front):
    leaks = front.leaks
    assert (leaks[(leaks.key == "group")].shared == 0).all()
    assert (leaks[leaks.kept_apart].shared == 0).all()


def test_the_recommended_plan_meets_its_own_rule(front):
    name = front.recommended
    good = [
        plan for plan in front.plans
        if plan.draw < 0 and front.returned(plan.name).value >= 0.9 and front.kept(plan.name).value >= 0.95
    ]  # fmt: skip
    if good:
        assert front.plan(name).energy_undone == min(plan.energy_undone for plan in good)
    else:
        assert name == ""
        assert "none returns" in repr(front)


def test_predictions_are_fitted_over_plans(front):
    fit = front.prediction()
    assert fit.n == len(front.plans)
    assert fit.slope > 0


def test_orders_are_compared_at_equal_shares(front):
    frame = front.comparison_frame()
    assert set(frame.order) >= {"one_gradient", "magnitude", "smallest", "random", "reverse"}
    assert (frame.low <= frame.ahead).all()


def test_the_chosen_set_has_a_stability(front):
    assert front.stability.plan.tolist() == ["path-5%", "path-20%"]
    assert front.stability.jaccard.between(0, 1).all()


def test_weights_are_what_they_were(refusal_pair, refusal_suites, tmp_path):
    kept = [untouched(m.model) for m in (refusal_pair.base, refusal_pair.aligned)]
    options = OPTIONS | {"shares": (0.2,), "draws": 1}
    first = frontier(refusal_pair, refusal_suites, orders=("path", "random"), folder=tmp_path, **options)
    assert all(same_weights(m.model, k) for m, k in zip((refusal_pair.base, refusal_pair.aligned), kept))
    measured = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = frontier(refusal_pair, refusal_suites, orders=("path", "random"), folder=tmp_path, **options)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == measured
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())


def test_learned_plans_see_the_training_half_and_leave_no_trace(refusal_pair, refusal_suites):
    kept = untouched(refusal_pair.aligned.model)
    options = OPTIONS | {"shares": (0.2,), "draws": 1}
    found = frontier(
        refusal_pair, refusal_suites, orders=("path", "learned_mask", "weight_patch", "relearn"), **options
    )
    assert {"learned_mask-20%", "weight_patch-20%", "relearn-10"} <= {plan.name for plan in found.plans}
    assert found.returned("learned_mask-20%").value > 0.1
    assert same_weights(refusal_pair.aligned.model, kept)


def test_a_checkpoint_is_a_plan_with_its_own_energy(refusal_pair, refusal_suites):
    found = frontier(
        refusal_pair, refusal_suites, orders=("path", "checkpoint"), checkpoints={"start": refusal_pair.base},
        **(OPTIONS | {"shares": (0.2,)}),
    )  # fmt: skip
    assert found.returned("checkpoint-start").value == pytest.approx(1)
    assert found.plan("checkpoint-start").energy_undone == pytest.approx(1)
    with pytest.raises(UsageError, match="earlier checkpoints"):
        frontier(refusal_pair, refusal_suites, orders=("path", "checkpoint"), **OPTIONS)


def test_one_gradient_is_the_slope_of_the_metric_along_the_unit(refusal_pair, refusal_suites):
    """<gradient, change> equals the finite difference of undoing a little of one unit."""
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure
    from taxlens.analysis.weights.gradients import first_order_loss

    difference = difference_of(refusal_pair)
    unit = difference.unit("1.mlp")
    facts = refusal_suites[0]
    measure = ChoiceMeasure(refusal_pair, (facts,), metrics=("nll",))
    ends = []
    for a in (0.005, -0.005):
        with mixture(refusal_pair, {"1.mlp": a}) as model:
            ends.append(measure(model)["facts"]["nll"].mean())
    slope = (ends[1] - ends[0]) / 0.01
    model = refusal_pair.aligned.model
    blamed = first_order_loss(
        model, [(facts, Prompting(refusal_pair.aligned.tokenizer))], difference, [unit], metric="nll"
    )
    assert blamed["facts"][0] == pytest.approx(slope, rel=1e-2)
    assert not any(p.requires_grad for p in model.parameters())


def test_direct_quadrature_sums_to_the_tax(refusal_pair, refusal_suites):
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure, losses

    difference = difference_of(refusal_pair)
    units = [difference.unit(name) for name in difference.units("component")]
    facts = refusal_suites[0]
    measure = ChoiceMeasure(refusal_pair, (facts,), metrics=("nll",))
    tax = losses(measure(refusal_pair.aligned.model), measure(refusal_pair.base.model))["facts", "nll"].mean()
    points, weights = np.polynomial.legendre.leggauss(16)
    found, asked = np.zeros(len(units)), [(facts, one_prompting(refusal_pair, facts, "plain"))]
    for t, weight in zip((points + 1) / 2, weights / 2, strict=True):
        with mixture(
            refusal_pair, dict.fromkeys(difference.units("component"), float(1 - t)), difference=difference
        ) as model:
            found += weight * first_order_loss(model, asked, difference, units, metric="nll")["facts"]
    assert found.sum() == pytest.approx(tax, rel=0.005)
    untouched_units = [i for i, unit in enumerate(units) if not difference.moved(unit)]
    assert np.abs(found[untouched_units]).max() == 0


def test_slopes_of_unknown_metrics_are_refused(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="smooth metric"):
        weight_slopes(
            refusal_pair.base.model,
            refusal_suites[0],
            Prompting(refusal_pair.base.tokenizer),
            modules=[],
            metric="accuracy",
        )


def test_the_cost_is_known_before_anything_runs(refusal_pair, refusal_suites):
    cost = frontier_cost(refusal_pair, refusal_suites, orders=ORDERS, **OPTIONS)
    assert cost.plans > 20
    assert "plans x" in repr(cost)
    assert cost.attribution > 0
    assert cost.answers == 0
    more = frontier_cost(refusal_pair, refusal_suites, generate=4, generate_plans=("path-20%",), **OPTIONS)
    assert more.answers == 2 * 4 * 4
    assert more.total == more.minutes + more.attribution + more.generation
    assert "answers by generation" in repr(more)
    learned = {order: frontier_cost(refusal_pair, refusal_suites, orders=(*ORDERS, order), **OPTIONS).learning
               for order in ("learned_mask", "weight_patch", "relearn", "checkpoint")}  # fmt: skip
    assert min(learned["learned_mask"], learned["weight_patch"], learned["relearn"]) > 0
    assert learned["checkpoint"] == cost.learning == 0
    assert learned["learned_mask"] > learned["relearn"]  # more steps, and the benefit's suites too


def test_orders_are_compared_where_they_keep_the_benefit(front):
    frame = front.matched_frame(least=0.5).set_index("order")
    assert tuple(frame.columns) == FRONTIER_MATCHED.names[1:]
    assert set(frame.index) == set(ORDERS)
    kept = frame[frame.plan != ""]
    assert (kept.benefit_kept >= 0.5).all()
    assert (kept.harm_kept >= 0.5).all()
    for order, row in kept.iterrows():
        rivals = [p.name for p in front.plans if p.order == order and front.kept(p.name).value >= 0.5]
        assert row.returned == max(front.returned(name).value for name in rivals)
    assert np.isnan(frame.loc["path"].path_ahead)
    other = frame.loc["magnitude"]
    if frame.loc["path"].plan and other.plan:
        assert other.path_ahead == pytest.approx(frame.loc["path"].returned - other.returned)


def test_an_order_that_loses_the_benefit_has_no_plan_at_that_benefit(front):
    frame = front.matched_frame(least=1.5).set_index("order")
    assert (frame.plan == "").any()
    assert frame[frame.plan == ""].returned.isna().all()


def test_further_shares_of_the_benefit_make_plans_of_their_own(refusal_pair, refusal_suites):
    options = {"orders": ("path", "one_gradient", "per_layer"), "keeps": (1.0,), "leave_out": False, **OPTIONS}
    found = frontier(refusal_pair, refusal_suites, **options)
    strict = [plan for plan in found.plans if plan.name.endswith("-keep100%")]
    assert {plan.order for plan in strict} == {"path", "one_gradient", "per_layer"}
    assert len(found.plans) == frontier_cost(refusal_pair, refusal_suites, **options).plans
    for plan in strict:
        if plan.order == "path":
            assert found.predicted_benefit[plan.name][1] >= 1 - 1e-6
    frame = found.comparison_frame()
    pairs = set(zip(frame.plan, frame.other))
    assert ("path-20%-keep100%", "one_gradient-20%-keep100%") in pairs
    assert found.stability.plan.tolist() == ["path-5%", "path-20%"]


def test_a_plan_to_generate_with_must_exist(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="path-20%"):
        frontier(
            refusal_pair, refusal_suites, orders=("path",), generate=4, generate_plans=("path-2%",),
            **(OPTIONS | {"shares": (0.2,)}),
        )  # fmt: skip


def test_refusals_are_generated_for_the_named_plans_and_both_ends(refusal_pair, refusal_suites):
    found = frontier(
        refusal_pair, refusal_suites, orders=("path", "magnitude"), generate=4, generate_plans=("magnitude-20%",),
        **(OPTIONS | {"shares": (0.2,)}),
    )  # fmt: skip
    assert set(found.generated) - {found.recommended} == {"base", "aligned", "magnitude-20%"}
    assert -1 <= found.benefit_generated("magnitude-20%") <= 1


def test_a_benefit_that_alignment_did_not_raise_is_refused(refusal_pair, refusal_suites):
    suites = [Suite(s.name, s.items, kind="benefit" if s.name == "sums" else s.kind) for s in refusal_suites]
    with pytest.raises(UsageError, match="did not raise this benefit"):
        frontier(refusal_pair, suites, **(OPTIONS | {"benefit": "sums"}), orders=("path",))


def test_without_a_taxed_suite_there_is_nothing_to_return(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="nothing to return"):
        frontier(refusal_pair, refusal_suites[1:], **OPTIONS)


def test_an_unknown_benefit_suite_is_answered_with_those_that_exist(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="no suite 'harms'"):
        frontier(refusal_pair, refusal_suites, **(OPTIONS | {"benefit": "harms"}))


def test_an_unknown_order_is_refused(refusal_pair, refusal_suites):
    with pytest.raises(UsageError, match="unknown order 'paths'"):
        frontier(refusal_pair, refusal_suites, orders=("paths",), **OPTIONS)


def test_too_few_items_to_split_are_refused(refusal_pair, refusal_suites):
    few = [refusal_suites[0].subset(range(4)), *refusal_suites[1:]]
    with pytest.raises(ItemError, match="too few items"):
        frontier(refusal_pair, few, **OPTIONS)


def test_harm_alone_is_a_constraint_of_its_own(front):
    assert front.harm_kept("uniform-1").value == pytest.approx(0, abs=1e-3)
    for plan in front.plans:
        harm, gap = front.harm_kept(plan.name), front.benefit_kept(plan.name)
        assert front.kept(plan.name).value == min(harm.value, gap.value)
    row = front.to_frame().query("plan == 'path-5%'").iloc[0]
    assert row.harm_kept == pytest.approx(front.harm_kept("path-5%").value)
    assert row.harmless == pytest.approx(front.harmless_nats("path-5%").value)


def test_a_plan_that_trades_harm_for_harmless_prompts_keeps_the_gap_and_is_not_recommended(front):
    """Four nats of refusing harm lost, five of complying won: the sum rises, and the plan must not be recommended."""
    from dataclasses import replace

    name = "uniform-1"
    base, aligned = front.base, front.aligned
    fallen = {s: dict(v) for s, v in aligned.items()}
    raised = float((aligned["harm"]["margin"] - base["harm"]["margin"]).mean())
    fallen["harm"]["margin"] = aligned["harm"]["margin"] - 0.4 * raised
    fallen["harmless"]["margin"] = aligned["harmless"]["margin"] + 0.5 * raised
    fallen["facts"] = base["facts"]
    traded = replace(front, values=dict(front.values) | {name: fallen}, plans=(front.plan(name),), margin=0.95)
    assert traded.benefit_kept(name).value > 1
    assert traded.harm_kept(name).value == pytest.approx(0.6)
    assert traded.returned(name).value == pytest.approx(1)
    assert traded.recommended == ""
    assert traded.matched_frame(least=0.95).plan.tolist() == [""]


def test_what_harm_loses_is_predicted_by_itself(front):
    fit = front.prediction(metric="margin", suites=["harm"], orders=["path", "magnitude", "random", "uniform"])
    assert fit.n == len([p for p in front.plans if p.order in ("path", "magnitude", "random", "uniform")])
    assert fit.slope > 0

"""Attribution as users call it: it closes, is additive, antisymmetric, and leaves the pair as it was."""

import numpy as np
import pytest
import torch

from taxlens.activations.models.pair import make_pair
from taxlens.analysis.path.attribute import attribute, gradient_effects
from taxlens.analysis.path.chain_rule import ScoreMetric
from taxlens.analysis.path.quadrature import gauss_patterson, panelled
from taxlens.analysis.scoring.choices import score_suite
from taxlens.core.errors import ItemError, TaxlensError, UsageError

METRICS = ("accuracy", "probability", "margin", "nll")


@pytest.fixture(scope="module")
def found(build, words):
    pair, suite = build("llama"), words(24)
    return pair, suite, attribute(pair, suite, metrics=METRICS, levels=("component", "head", "singular"), tolerance=0.2)


def test_effects_close_on_the_tax_that_scoring_measures(found):
    pair, suite, result = found
    ends = [score_suite(m, suite).metrics() for m in (pair.base, pair.aligned)]
    for metric, sign in zip(METRICS, (1, 1, 1, -1)):
        tax = sign * (ends[0][metric] - ends[1][metric])
        assert result.taxes("words", metric) == pytest.approx(tax, abs=1e-4)
        assert result.total("words", metric) == pytest.approx(tax.mean(), abs=2e-4)


def test_every_item_closes_not_only_the_mean(found):
    _, _, result = found
    for metric in METRICS:
        values = result.effects("words", metric)[1]
        assert values.sum(axis=1) == pytest.approx(result.taxes("words", metric), abs=2e-2)


def test_levels_sum_to_components(found):
    _, _, result = found
    for metric in METRICS:
        whole = result.effects("words", metric)[1].sum(axis=1)
        for level in ("head", "singular"):
            assert result.effects("words", metric, level)[1].sum(axis=1) == pytest.approx(whole, abs=1e-6)


def test_tokens_sum_to_the_item(found):
    _, _, result = found
    for metric, values in result.suites["words"].tokens.values.items():
        summed = np.zeros_like(result.effects("words", metric)[1])
        np.add.at(summed, result.suites["words"].tokens.item, values)
        assert summed == pytest.approx(result.effects("words", metric)[1], abs=1e-6)


def test_tables_have_the_columns_of_the_contract(found):
    _, _, result = found
    assert list(result.to_frame().columns) == [
        "suite", "template", "metric", "level", "component", "layer", "kind", "method", "effect", "low", "high",
        "quadrature_error", "share",
    ]  # fmt: skip
    assert list(result.items_frame().columns) == [
        "suite", "template", "metric", "method", "level", "component", "item", "effect",
    ]  # fmt: skip
    assert list(result.tokens_frame().columns) == [
        "suite", "template", "metric", "method", "level", "component", "item", "choice", "token", "text", "effect",
    ]  # fmt: skip
    assert list(result.closure_frame().columns)[:11] == [
        "suite", "template", "metric", "method", "tax", "attributed", "prompt_and_config", "residual",
        "residual_share", "gradients", "forwards",
    ]  # fmt: skip
    assert list(result.path_frame().columns) == ["suite", "template", "metric", "t", "value", "chord"]


def test_table_rows_of_a_level_sum_to_the_attributed_tax(found):
    _, _, result = found
    table, closure = result.to_frame(), result.closure_frame().set_index("metric")
    for (metric, _), rows in table.groupby(["metric", "level"]):
        assert rows["effect"].sum() == pytest.approx(closure.loc[metric, "attributed"], abs=1e-8)
    assert (table["low"] <= table["effect"] + 1e-9).all()
    assert (table["effect"] <= table["high"] + 1e-9).all()


def test_profile_starts_at_the_base_and_ends_at_the_aligned_model(found):
    pair, suite, result = found
    rows = result.path_frame().query("metric == 'probability'")
    ends = [score_suite(m, suite).metrics()["probability"].mean() for m in (pair.base, pair.aligned)]
    assert rows["value"].iloc[[0, -1]].tolist() == pytest.approx(ends, abs=1e-4)
    assert rows["chord"].iloc[[0, -1]].tolist() == pytest.approx(ends, abs=1e-4)
    assert rows["t"].is_monotonic_increasing


def test_repr_says_tax_interval_items_gradients_and_closure(found):
    text = repr(found[2])
    for part in ("words accuracy", "n=24 items in 4 groups", "gradients"):
        assert part in text


def test_exchanging_base_and_aligned_reverses_every_effect(build, words):
    pair, suite = build("llama"), words(8)
    options = {"metrics": METRICS, "levels": ("component", "singular"), "rules": [gauss_patterson(7)]}
    there = attribute(pair, suite, **options)
    back = attribute(make_pair(pair.aligned, pair.base), suite, **options)
    for metric in METRICS:
        for level in ("component", "singular"):
            forward, reverse = (r.effects("words", metric, level)[1] for r in (there, back))
            assert reverse == pytest.approx(-forward, abs=1e-9)


def test_base_against_itself_has_no_tax_and_no_effect(build, words):
    pair = build("llama", change=lambda name: 0.0)
    result = attribute(pair, words(6))
    for metric in ("accuracy", "probability", "nll"):
        assert (result.effects("words", metric)[1] == 0).all()
        assert (result.taxes("words", metric) == 0).all()
    assert result.closed


def test_an_unchanged_component_gets_exactly_zero(build, words):
    pair = build("gpt2", change=lambda name: 0.0 if ".h.1." in name else 1.0)
    result = attribute(pair, words(6), rules=[gauss_patterson(3)])
    names, values = result.effects("words", "probability")
    for column, name in enumerate(names):
        assert bool((values[:, column] == 0).all()) == name.startswith("1.")


def test_weights_are_left_as_they_were(found):
    pair, suite, _ = found
    before = [p.detach().clone() for m in (pair.base, pair.aligned) for p in m.model.parameters()]
    attribute(pair, suite, rules=[gauss_patterson(3)])
    after = [p for m in (pair.base, pair.aligned) for p in m.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after))


def test_effects_agree_with_a_reference_of_many_nodes(build, words):
    pair, suite = build("llama", size=0.15), words(12)
    result = attribute(pair, suite, metrics=("probability", "nll"))
    reference = attribute(pair, suite, metrics=("probability", "nll"), rules=[panelled(31, [0.0, 0.5, 1.0])])
    for metric in ("probability", "nll"):
        mean, wanted = (r.effects("words", metric)[1].mean(axis=0) for r in (result, reference))
        assert np.abs(mean - wanted).sum() <= 0.01 * max(abs(wanted.sum()), 0.02)


def test_quadrature_error_bounds_the_distance_to_the_reference(build, words):
    pair, suite = build("llama", size=0.15), words(12)
    result = attribute(pair, suite, metrics=("nll",), rules=[gauss_patterson(3), gauss_patterson(7)], tolerance=1e-9)
    reference = attribute(pair, suite, metrics=("nll",), rules=[gauss_patterson(31)])
    off = np.abs(result.effects("words", "nll")[1] - reference.effects("words", "nll")[1]).mean(axis=0)
    stated = result.suites["words"].errors["nll", "component"]
    assert off.sum() < stated.sum()


def test_an_unreachable_tolerance_is_reported_and_not_hidden(build, words):
    result = attribute(build("llama"), words(6), tolerance=1e-12, max_gradients=7)
    assert not result.closed
    assert result.closure_frame()["reason"].str.len().gt(0).all()
    assert "NOT closed" in repr(result)
    assert result.suites["words"].gradients == 7


def test_one_gradient_is_the_slope_at_its_point_and_does_not_close(build, words):
    pair, suite = build("llama"), words(12)
    first = gradient_effects(pair, suite, t=0.0, metrics=("nll",), levels=("component",))
    assert first.method == "one_gradient"
    step = 1e-3
    from taxlens.analysis.weights.path_weights import walk

    with walk(pair) as path:
        nlls = [score_suite(path.to(t), suite, tokenizer=pair.base.tokenizer).metrics()["nll"] for t in (0.0, step)]
    assert first.effects("words", "nll")[1].sum(axis=1) == pytest.approx((nlls[1] - nlls[0]) / step, rel=0.1, abs=0.1)
    assert abs(first.total("words", "nll") - first.taxes("words", "nll").mean()) > 1e-2


def test_a_users_metric_is_attributed_and_closes(build, words):
    pair, suite = build("qwen2", size=0.15), words(12)
    odds = ScoreMetric(lambda scores, gold: scores[..., 0] - scores[..., 1])
    result = attribute(pair, suite, metrics=("odds",), functions={"odds": odds})
    assert result.total("words", "odds") == pytest.approx(result.taxes("words", "odds").mean(), abs=1e-3)


def test_several_suites_come_from_one_call(build, words):
    result = attribute(build("llama"), [words(4, name="one"), words(5, seed=1, name="two")], rules=[gauss_patterson(3)])
    assert set(result.to_frame()["suite"]) == {"one", "two"}
    assert len(result.effects("two", "nll")[1]) == 5


def test_items_draws_that_many_by_seed(build, words):
    pair, suite = build("llama"), words(12)
    drawn = [attribute(pair, suite, items=5, seed=s, rules=[gauss_patterson(3)]).suites["words"].items for s in (0, 0)]
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1]


def test_unknown_metric_names_the_known_ones(build, words):
    with pytest.raises(
        UsageError, match=r"unknown metric 'acuracy'[\s\S]*accuracy, accuracy_norm[\s\S]*Try: 'accuracy'"
    ):
        attribute(build("llama"), words(4), metrics=("acuracy",))


def test_unknown_level_is_refused(build, words):
    with pytest.raises(UsageError, match="unknown level 'layers'"):
        attribute(build("llama"), words(4), levels=("layers",))


def test_no_suite_is_refused(build):
    with pytest.raises(UsageError, match="no suite to attribute"):
        attribute(build("llama"), [])


def test_accuracy_has_no_one_gradient_estimate(build, words):
    with pytest.raises(UsageError, match="metric with a gradient"):
        gradient_effects(build("llama"), words(4), metrics=("accuracy",))


def test_a_point_off_the_path_is_refused(build, words):
    with pytest.raises(UsageError, match="between 0 and 1"):
        gradient_effects(build("llama"), words(4), t=1.5)


def test_a_suite_without_choices_is_refused(build):
    from taxlens.activations.items.items import Item, Suite

    with pytest.raises(ItemError, match="no item of the suite has choices"):
        attribute(build("llama"), Suite("texts", (Item("t/0", "g", text="w1 w2"),)))


def test_a_weight_that_is_not_finite_is_named(build, words):
    pair = build("llama")
    pair.aligned.model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(TaxlensError, match=r"not finite[\s\S]*layers.0.mlp.up_proj"):
        attribute(pair, words(4))


def test_a_score_that_is_not_finite_names_the_item(build, words):
    pair = build("llama")
    pair.aligned.model.model.norm.weight.data[:] = 1e308
    with pytest.raises(TaxlensError, match=r"score is not finite[\s\S]*item 'i0', choice 0"):
        attribute(pair, words(4))


def test_tokens_carry_their_text(found):
    table = found[2].tokens_frame()
    assert table["text"].str.match(r"w\d+$|<").all()
    assert (table["component"] == "").any()


def test_asking_for_what_was_not_attributed_lists_what_was(found):
    with pytest.raises(UsageError, match="no suite 'other' was attributed"):
        found[2].effects("other", "nll")
    with pytest.raises(UsageError, match="was not attributed in nll by neuron"):
        found[2].effects("words", "nll", "neuron")

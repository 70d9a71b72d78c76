"""Tables made from an attribution: largest neurons and their rest, significance, readings, names, whole polylines."""

import copy

import numpy as np
import pytest
import torch

from taxlens.analysis.path.adaptive_quadrature import ladder_of
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.polyline import attribute_polyline
from taxlens.analysis.path.quadrature import gauss_patterson
from taxlens.analysis.path.top_neurons import with_top_neurons
from taxlens.analysis.readings.reading_tables import ATTRIBUTION_READING, ATTRIBUTION_UNITS
from taxlens.analysis.readings.significance import effect_tests, significance_frame
from taxlens.analysis.readings.triple_tables import names_table, reading_tables

QUICK = {"rules": [gauss_patterson(3)], "perplexity": False, "metrics": ("nll", "probability")}


@pytest.fixture(scope="module")
def found(build, words):
    pair, suite = build("llama", size=0.15), words(8)
    levels = ("component", "head", "neuron", "singular")
    return pair, suite, attribute(pair, suite, levels=levels, neurons=0, **QUICK)


def test_the_largest_neurons_stay_and_the_others_are_one_row(found):
    whole = found[2].suites["words"]
    few = with_top_neurons(whole, 5)
    names = few.units["neuron"]
    assert sum(name.startswith("1.mlp.n") for name in names) == 5
    assert names.count("1.mlp.rest") == 1
    assert len(set(names)) == len(names)
    kept = [names.index(name) for name in names if name.startswith("1.mlp.")]
    component = whole.units["component"].index("1.mlp")
    for metric in ("nll", "probability"):
        summed = few.values[metric, "neuron"][:, kept].sum(axis=1)
        assert summed == pytest.approx(whole.values[metric, "component"][:, component], abs=1e-6)


def test_the_neurons_that_stay_are_the_largest(found):
    whole = found[2].suites["words"]
    few = with_top_neurons(whole, 3)
    mean = np.abs(whole.values["nll", "neuron"].mean(axis=0))
    mine = [i for i, name in enumerate(whole.units["neuron"]) if name.startswith("0.mlp.n")]
    largest = whole.units["neuron"][mine[int(np.argmax(mean[mine]))]]
    assert largest in few.units["neuron"]


def test_norms_and_embeddings_keep_their_rows_at_the_neuron_level(found):
    few = with_top_neurons(found[2].suites["words"], 2)
    assert {"0.norm", "embed", "0.attn", "final_norm"} <= set(few.units["neuron"])
    assert len(few.layers["neuron"]) == len(few.kinds["neuron"]) == len(few.units["neuron"])
    assert with_top_neurons(found[2].suites["words"], 0) is found[2].suites["words"]


def test_significance_covers_every_suite_metric_and_level(found):
    table = significance_frame(found[2], draws=100)
    assert len(table) == len(found[2].to_frame())
    one = effect_tests(found[2], "words", "nll", level="head", draws=100)
    mine = table[(table["metric"] == "nll") & (table["level"] == "head")]
    assert mine["p_adjusted"].tolist() == one["p_adjusted"].tolist()
    assert (table["p_adjusted"] >= table["p"]).all()


def test_leading_triples_are_read_with_their_cluster_and_stability(found):
    pair, suite, attribution = found
    tables = reading_tables(pair, [suite], attribution, metric="nll", top=3, tokens=4)
    units, readings = tables["attribution_units"], tables["attribution_reading"]
    assert tuple(units.columns) == ATTRIBUTION_UNITS.names
    assert tuple(readings.columns) == ATTRIBUTION_READING.names
    names, values = attribution.effects("words", "nll", "singular")
    mean = np.abs(values.mean(axis=0))
    place = {name: n for n, name in enumerate(names)}
    triples = [name for name in names if name.rsplit(".", 1)[-1][0] == "s"]
    largest = sorted(triples, key=lambda name: -mean[place[name]])[:3]
    assert len(units) == 3
    assert units["component"].tolist() == largest
    assert (units["cluster_size"] >= 1).all()
    assert units["same_sign"].between(0, 1).all()
    reads = readings[readings["side"] == "reads high"]
    assert (reads.groupby("component")["rank"].max() == 4).all()
    assert set(reads["item"]) <= {item.id for item in suite.items}


def test_high_and_low_readings_stand_at_the_ends(found):
    pair, suite, attribution = found
    readings = reading_tables(pair, [suite], attribution, metric="nll", top=1, tokens=3)["attribution_reading"]
    high, low = (readings[readings["side"] == side]["value"].to_numpy() for side in ("reads high", "reads low"))
    assert high.min() >= low.max()
    assert (np.diff(high) <= 0).all()
    assert (np.diff(low) >= 0).all()


def test_names_give_every_changed_unit_its_hook_and_parameter(found):
    pair, _, attribution = found
    table = names_table(pair, attribution, singular=["0.mlp.down.s0"])
    assert set(table["level"]) == {"component", "head", "singular"}
    row = table[(table["component"] == "1.attn.h2") & table["parameter"].str.contains("o_proj")].iloc[0]
    assert (row["transformer_lens"], row["columns"]) == ("blocks.1.attn.W_O", "16:24")
    assert table[table["level"] == "singular"]["hook"].tolist() == ["blocks.0.hook_mlp_out"]


def test_names_leave_out_what_did_not_change(build, words):
    pair = build("llama", change=lambda name: 1.0 if "layers.0.mlp" in name else 0.0)
    table = names_table(pair, attribute(pair, words(3), levels=("component",), **QUICK))
    assert set(table["component"]) == {"0.mlp"}


def test_the_whole_of_a_polyline_is_the_sum_of_its_segments(build, words):
    pair, suite = build("llama", size=0.15), words(5)
    middle = copy.deepcopy(pair.aligned.model)
    with torch.no_grad():
        for number, m in enumerate(middle.parameters()):
            m.add_(0.01 * torch.randn(m.shape, generator=torch.Generator().manual_seed(number)).to(m))
    half = type(pair.base)(
        middle, *(getattr(pair.base, f) for f in ("tokenizer", "source", "sha256", "chat_template", "device", "dtype"))
    )
    line = attribute_polyline([pair.base, half, pair.aligned], suite, levels=("component", "head", "singular"), **QUICK)
    whole = line.whole()
    assert whole.effects("words", "nll")[1] == pytest.approx(line.effects("words", "nll")[1])
    assert whole.taxes("words", "nll") == pytest.approx(line.taxes("words", "nll"))
    assert set(whole.to_frame()["level"]) == {"component", "head"}
    closure = whole.closure_frame().iloc[0]
    assert closure["gradients"] == 6
    path = whole.path_frame()
    assert path.groupby("metric")["t"].apply(lambda t: t.is_monotonic_increasing and t.is_unique).all()
    tokens = whole.tokens_frame().query("component == ''").groupby("metric")["effect"].sum()
    assert tokens["nll"] == pytest.approx(whole.effects("words", "nll")[1].sum(), rel=1e-3, abs=1e-4)


def test_the_ladder_without_a_bound_has_no_panels_before_its_largest_rule():
    assert [len(rule.panels) for rule in ladder_of(31)] == [1, 1, 1, 1]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3", "mixtral"])
def test_tables_are_made_for_fused_and_mixed_families(build, words, family):
    pair, suite = build(family, size=0.1), words(3)
    found = attribute(pair, suite, levels=("component", "head", "neuron", "singular"), neurons=2, **QUICK)
    tables = reading_tables(pair, [suite], found, metric="nll", top=2, tokens=3)
    assert len(tables["attribution_units"]) == 2
    names = names_table(pair, found, singular=tables["attribution_units"]["component"].tolist())
    assert set(names["level"]) == {"component", "head", "singular"}
    for level in ("head", "neuron", "singular"):
        whole, parts = (found.effects("words", "nll", one)[1].sum(axis=1) for one in ("component", level))
        assert parts == pytest.approx(whole, abs=1e-6)


def test_items_that_a_walk_leaves_unresolved_are_walked_again_and_the_others_left(build, words, monkeypatch):
    from taxlens.analysis.path import engine as job

    pair, suite = build("llama", size=0.4), words(6)
    options = {
        "perplexity": False,
        "metrics": ("nll", "probability"),
        "tolerance": 0.3,
        "levels": ("component", "head"),
    }
    monkeypatch.setattr(job, "unresolved", lambda found, tolerance: np.zeros(0, dtype=int))
    once = attribute(pair, suite, **options).suites["words"]
    monkeypatch.setattr(job, "unresolved", lambda found, tolerance: np.array([1, 4]))
    again = attribute(pair, suite, **options).suites["words"]
    fine = attribute(pair, suite, rules=[gauss_patterson(31)], **options).suites["words"]
    assert (once.rewalked, again.rewalked) == (0, 2)
    assert once.gradients == again.gradients < 31
    for key, values in again.values.items():
        assert values[[0, 2, 3, 5]] == pytest.approx(once.values[key][[0, 2, 3, 5]])
        apart = [np.abs(one.values[key][[1, 4]] - fine.values[key][[1, 4]]).sum() for one in (again, once)]
        assert apart[0] <= apart[1] + 1e-9
    assert again.missed[[1, 4]].sum() <= once.missed[[1, 4]].sum()
    tokens = again.tokens
    for metric in ("nll", "probability"):
        summed = np.bincount(tokens.item, tokens.values[metric].sum(axis=1), 6)
        assert summed == pytest.approx(again.values[metric, "component"].sum(axis=1), abs=1e-6)


def test_an_item_is_unresolved_where_its_end_is_off_by_more_than_half_the_tolerance_of_the_mean_move(found):
    import dataclasses

    from taxlens.analysis.path.adaptive_quadrature import finer_rules, unresolved

    one = dataclasses.replace(found[2].suites["words"], missed=np.array([0, 0.004, 0.006, 0.1]), moved=np.ones(4))
    assert unresolved(one, 0.01).tolist() == [2, 3]
    assert [len(rule.nodes) for rule in finer_rules(7, 32)] == [7, 15, 31]
    assert finer_rules(7, 8) == []
    assert finer_rules(31, 32) == []

"""What surrounds an attribution: polylines, KL, tests of effects, nulls, agreement, readings, exports."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from taxlens.activations.models.pair import make_pair
from taxlens.analysis.path.adaptive_quadrature import ladder_of
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.polyline import attribute_polyline
from taxlens.analysis.path.quadrature import gauss_patterson
from taxlens.analysis.readings.agreement import agreement
from taxlens.analysis.readings.significance import effect_tests, null_effects, null_frame, shuffled
from taxlens.analysis.readings.triples import agreement_of_seeds, clusters, read_triples, stability
from taxlens.analysis.weights.external_names import export_units
from taxlens.analysis.weights.units import difference_of
from taxlens.core.errors import UsageError

QUICK = {"rules": [gauss_patterson(3)], "perplexity": False}


@pytest.fixture(scope="module")
def llama(build, words):
    pair, suite = build("llama", size=0.15), words(8)
    return pair, suite, attribute(pair, suite, levels=("component", "singular"), **QUICK)


def test_polyline_through_a_point_of_the_line_gives_the_straight_paths_effects(build, words):
    pair, suite = build("llama", size=0.15), words(5)
    middle = copy.deepcopy(pair.aligned.model)
    with torch.no_grad():
        for m, a, b in zip(middle.parameters(), pair.base.model.parameters(), pair.aligned.model.parameters()):
            m.copy_((a + b) / 2)
    half = type(pair.base)(
        middle, *(getattr(pair.base, f) for f in ("tokenizer", "source", "sha256", "chat_template", "device", "dtype"))
    )
    options = {"rules": [gauss_patterson(15)], "perplexity": False, "metrics": ("nll",)}
    line = attribute(pair, suite, **options)
    bent = attribute_polyline([pair.base, half, pair.aligned], suite, names=("a", "b", "c"), **options)
    assert bent.names == ("a -> b", "b -> c")
    assert bent.taxes("words", "nll") == pytest.approx(line.taxes("words", "nll"), abs=1e-4)
    assert bent.effects("words", "nll")[1] == pytest.approx(line.effects("words", "nll")[1], abs=1e-3)
    assert set(bent.to_frame()["segment"]) == set(bent.names)
    assert bent.path_frame()["t"].between(0, 1).all()
    with pytest.raises(UsageError, match="do not add"):
        bent.effects("words", "nll", "singular")


def test_a_polyline_of_one_checkpoint_is_refused(build, words):
    with pytest.raises(UsageError, match="at least two checkpoints"):
        attribute_polyline([build("llama").base], words(4))


def test_kl_to_the_base_closes_on_the_measured_divergence(build, words):
    pair, suite = build("llama", size=0.1), words(5)
    found = attribute(pair, suite, metrics=("kl",), max_gradients=15, perplexity=False)
    closure = found.closure_frame().iloc[0]
    assert closure["metric"] == "kl"
    assert closure["tax"] > 0
    assert closure["residual_share"] == pytest.approx(0, abs=1e-3)


def test_kl_of_a_model_to_itself_is_zero(build, words):
    same = build("llama", change=lambda name: 0.0)
    found = attribute(same, words(3), metrics=("kl",), max_gradients=3, perplexity=False)
    assert found.closure_frame()["tax"].tolist() == [0]


def test_sign_flips_find_a_real_effect_and_leave_noise_alone(llama):
    _, _, found = llama
    draw = np.random.default_rng(0)
    values = draw.normal(size=(60, 6))
    values[:, 2] += 1.5
    values[:, 5] = 0
    one = found.suites["words"]
    made = type(found)("plain", {"words": _with(one, values, 60)})
    table = effect_tests(made, "words", "nll").set_index("component")
    assert table["p_adjusted"].iloc[2] < 0.01
    assert table["p_adjusted"].iloc[[0, 1, 3, 4]].min() > 0.05
    assert table["p"].iloc[5] == 1
    assert np.isnan(table["consistency"].iloc[5])
    assert table["consistency"].iloc[2] > 0.8


def _with(one, values, n):
    import dataclasses

    return dataclasses.replace(
        one, items=tuple(map(str, range(n))), groups=np.arange(n).astype(str).astype(object),
        units={"component": tuple("abcdef")}, values={("nll", "component"): values},
    )  # fmt: skip


def test_shuffled_change_has_the_same_spectrum_in_other_directions(build):
    pair = build("llama")
    null = shuffled(pair, seed=1)
    name = "model.layers.0.mlp.up_proj"
    spectra = [difference_of(p).triples(name)[1] for p in (pair, null)]
    assert spectra[1] == pytest.approx(spectra[0].numpy(), rel=1e-6)
    left = [difference_of(p).triples(name)[0][:, 0] for p in (pair, null)]
    assert abs(float(left[0] @ left[1])) < 0.8


def test_null_table_says_how_often_an_effect_exceeds_a_shuffled_change(llama):
    pair, suite, found = llama
    nulls = null_effects(pair, suite, draws=2, levels=("component",), **QUICK)
    table = null_frame(found, nulls)
    assert {"null_size", "exceeds"} <= set(table.columns)
    assert table["exceeds"].between(0, 1).all()
    assert len(table) == (found.to_frame()["level"] == "component").sum()


def test_agreement_of_a_method_with_itself_is_perfect_and_with_its_negative_is_not(llama):
    table = llama[2].to_frame().query("level == 'component' and metric == 'nll'")
    other = table.assign(method="graft", effect=-table["effect"])
    restore = table.assign(method="restore")
    panel = agreement(pd.concat([table, other, restore]), llama[2].closure_frame()).set_index("method")
    assert panel.loc["path", "pearson"] == pytest.approx(1)
    assert panel.loc["restore", ["l1", "spearman", "top3"]].tolist() == pytest.approx([0, 1, 1])
    assert panel.loc["graft", "pearson"] == pytest.approx(-1)
    assert panel.loc["path", "interaction_share"] > 0


def test_agreement_without_the_reference_is_refused(llama):
    table = llama[2].to_frame().assign(method="graft")
    with pytest.raises(UsageError, match="no effects by 'path'"):
        agreement(table, llama[2].closure_frame())


def test_a_triple_is_read_by_what_it_writes_and_reads(llama):
    pair, suite, _ = llama
    reading = read_triples(pair, ["1.mlp.down.s0"], suite, top=3)[0]
    u = difference_of(pair).triples("model.layers.1.mlp.down_proj")[0][:, 0].float()
    logits = pair.aligned.model.lm_head.weight.float() @ (pair.aligned.model.model.norm.weight.float() * u)
    assert reading.writes["token"].iloc[0] == int(logits.argmax())
    assert reading.writes["logit"].iloc[-1] == pytest.approx(float(logits.min()), rel=1e-4)
    assert reading.reads["value"].is_monotonic_decreasing
    assert set(reading.reads["item"]) <= {item.id for item in suite.items}


def test_a_triple_that_writes_no_residual_has_no_tokens_to_write(llama):
    assert read_triples(llama[0], ["0.attn.q.s0"], llama[1], top=2)[0].writes.empty


def test_reading_something_that_is_no_triple_is_refused(llama):
    with pytest.raises(UsageError, match="'0.mlp' is no singular triple"):
        read_triples(llama[0], ["0.mlp"], llama[1])


def test_close_singular_values_are_one_cluster(build):
    pair = build("llama", change=lambda name: 0.0)
    q, _ = torch.linalg.qr(torch.randn(32, 4, dtype=torch.float64))
    with torch.no_grad():
        weight = pair.aligned.model.model.layers[0].self_attn.o_proj.weight
        weight += q * torch.tensor([1.0, 0.99, 0.5, 0.3], dtype=torch.float64) @ q.T
    assert clusters(pair, "model.layers.0.self_attn.o_proj").tolist() == [0, 0, 1, 2]


def test_stability_lists_leading_units_and_how_often_they_lead(llama):
    table = stability(llama[2], "words", "nll", top=3, draws=200)
    assert table["in_top"].sum() == pytest.approx(3)
    assert table["same_sign"].between(0, 1).all()


def test_seeds_of_equal_effects_have_no_spread(llama):
    table = agreement_of_seeds([llama[2], llama[2]], "words", "nll")
    assert (table["deviation"] == 0).all()


def test_units_are_exported_under_other_tools_names(llama, build):
    table = export_units(llama[0], {"1.attn.h2": 0.5}, level="head")
    rows = table.set_index("parameter")
    assert rows.loc["model.layers.1.self_attn.q_proj.weight", "rows"] == "16:24"
    assert rows.loc["model.layers.1.self_attn.o_proj.weight", "columns"] == "16:24"
    assert rows.loc["model.layers.1.self_attn.o_proj.weight", "transformer_lens"] == "blocks.1.attn.W_O"
    assert (table["coefficient"] == 0.5).all()
    hooks = export_units(build("gpt2"), ["0.mlp"]).set_index("parameter")["hook"]
    assert hooks["transformer.h.0.mlp.c_fc.weight"] == "blocks.0.mlp.hook_pre"


def test_ladder_ends_within_the_bound_and_goes_on_in_panels():
    assert [len(rule.nodes) for rule in ladder_of(32)] == [3, 7, 15, 31]
    assert [len(rule.nodes) for rule in ladder_of(8)] == [3, 7]
    assert [len(rule.nodes) for rule in ladder_of(2)] == [1]
    assert [len(rule.panels) for rule in ladder_of(130)] == [1, 1, 1, 1, 2, 4]


def test_a_rescale_that_keeps_the_function_of_both_models_changes_no_component(build, words):
    pair, suite = build("llama", size=0.15), words(5)
    options = {"rules": [gauss_patterson(7)], "perplexity": False, "metrics": ("nll",)}
    before = attribute(pair, suite, **options).effects("words", "nll")[1]
    both = make_pair(_rescaled(pair.base), _rescaled(pair.aligned))
    assert attribute(both, suite, **options).effects("words", "nll")[1] == pytest.approx(before, abs=1e-5)


def test_a_rescale_of_one_model_alone_changes_effects_and_not_the_tax(build, words):
    pair, suite = build("llama", size=0.15), words(5)
    options = {"rules": [gauss_patterson(7)], "perplexity": False, "metrics": ("nll",)}
    before, after = (attribute(p, suite, **options) for p in (pair, make_pair(pair.base, _rescaled(pair.aligned))))
    assert after.taxes("words", "nll") == pytest.approx(before.taxes("words", "nll"), abs=1e-5)
    assert np.abs(after.effects("words", "nll")[1] - before.effects("words", "nll")[1]).max() > 1e-2


def _rescaled(loaded):
    """The same function: up projections doubled and down projections halved, values doubled and outputs halved."""
    import dataclasses

    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight *= 2
            layer.mlp.down_proj.weight /= 2
            layer.self_attn.v_proj.weight *= 2
            layer.self_attn.o_proj.weight /= 2
    return dataclasses.replace(loaded, model=model)

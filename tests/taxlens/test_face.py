"""The notebook face on the embedded pair: every result has a line, a table, HTML and a figure."""

import numpy as np
import pytest

import taxlens
from taxlens.core.errors import ConfigError, UsageError
from taxlens.figures.style import Drawn


@pytest.fixture(scope="module")
def pair():
    return taxlens.load_pair("demo:base", "demo:planted")


@pytest.fixture(scope="module")
def facts():
    suite = taxlens.suite("demo:facts")
    return suite.subset(range(48))


@pytest.fixture(scope="module")
def acts(pair, facts, tmp_path_factory):
    return pair.capture(facts, to=tmp_path_factory.mktemp("store") / "acts.h5", templates=("plain",))


def test_the_tax_shows_itself_in_a_line_a_table_html_and_a_figure(pair, facts):
    tax = pair.tax(facts, templates=("plain",))
    frame = tax.to_frame()
    assert set(frame["metric"]) == {"accuracy", "probability", "nll"}
    assert frame.set_index("metric").loc["probability", "tax"] > 0.3
    assert "n=" in repr(tax) or "items" in repr(tax)
    assert "<table" in tax._repr_html_()
    assert isinstance(tax.plot(name="tax_probability"), Drawn)


def test_attribution_finds_the_planted_components_and_sums_to_the_tax(pair, facts):
    found = pair.attribute(facts)
    rows = found.to_frame()
    effects = rows[(rows["metric"] == "probability") & (rows["level"] == "component")].set_index("component")["effect"]
    assert set(effects.nlargest(2).index) == {"2.mlp", "1.attn"}
    assert "measured tax" in set(found.plot().plotted["component"])
    tax = pair.tax(facts, templates=("plain",)).to_frame().set_index("metric").loc["probability", "tax"]
    assert effects.sum() == pytest.approx(tax, abs=0.01 * abs(tax))


def test_activations_are_probed_and_compared_by_layer(acts):
    assert "correct" in acts.labels
    curve = acts.probe("correct", permutations=19)
    assert curve.to_frame()["layer"].dropna().nunique() == 4
    assert {"drop", "p_adjusted"} <= set(curve.more["probe_drop"].columns)
    assert isinstance(curve.plot(), Drawn)
    alike = acts.similarity("cka")
    assert alike.to_frame()["value"].between(0.5, 1).all()
    assert isinstance(alike.plot(), Drawn)
    assert "4 layers" in repr(alike)


def test_activations_say_what_they_hold(acts):
    assert "resid_post" in repr(acts)
    assert "<table" in acts._repr_html_()
    reopened = taxlens.open_activations(acts.store.view)
    np.testing.assert_array_equal(reopened.store.read("resid_post", 2), acts.store.read("resid_post", 2))


def test_a_pair_names_its_two_checkpoints(pair):
    assert "base" in repr(pair)
    assert "planted" in repr(pair)
    assert "<table" in pair._repr_html_()


def test_single_swaps_and_shapley_values_draw_themselves_beside_each_other(pair, facts):
    from taxlens.analysis.interventions.graft import graft_effects
    from taxlens.analysis.interventions.shapley import shapley_effects
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure

    few = facts.subset(range(16))
    measure = ChoiceMeasure(pair.models, (few,), metrics=("probability",))
    groups = {few.name: few.groups}
    grafts = graft_effects(pair.models, measure, groups=groups, units=["1.attn", "2.mlp"], draws=200)
    shares = shapley_effects(
        pair.models, measure, groups=groups, players={"1.attn": ["1.attn"], "2.mlp": ["2.mlp"]}, draws=200
    )
    for found in (grafts.graft, grafts.restore, shares):
        drawn = found.plot()
        assert set(drawn.plotted["component"]) == {"1.attn", "2.mlp"}
        assert set(drawn.plotted["method"]) == {found.method}
        assert "<table" in found._repr_html_()


def test_the_restoration_profile_draws_itself_and_its_steps_sum_to_the_tax(pair, facts):
    found = pair.restoration(facts.subset(range(16)), draws=200)
    assert "restored" in found.plot(name="restoration_profile_probability").plotted
    assert found.steps(facts.name, "probability").mean(0).sum() == pytest.approx(
        found.taxes[facts.name, "probability"].mean()
    )


def test_a_drawing_shows_itself_as_png(pair, facts):
    assert pair.tax(facts, templates=("plain",)).plot()._repr_png_().startswith(b"\x89PNG")


def test_wrong_names_say_what_there_is(acts):
    with pytest.raises(UsageError, match="correct"):
        acts.probe("corect")
    with pytest.raises(ConfigError, match="demo:facts"):
        taxlens.suite("demo:fact")
    with pytest.raises(ConfigError, match="demo:planted"):
        taxlens.load_pair("demo:base", "demo:plantd")
    with pytest.raises(ConfigError, match="suite's file does not exist"):
        taxlens.suite("nothing.jsonl")


def test_a_comparison_stacks_runs_by_name(tmp_path, put):
    import pandas as pd

    from taxlens.config.schema import build_config

    folders = []
    for name in ("one", "two"):
        values = {"name": name, "pair": {"base": "a", "aligned": "b"}, "suites": [{"name": "facts", "file": "f"}]}
        run = taxlens.Run.create(build_config(values), tmp_path / name, given=values, root=tmp_path)
        put(run, "tax", pd.DataFrame({"suite": ["facts"], "tax": [0.1]}))
        folders.append(run.folder)
    both = taxlens.compare(folders)
    assert list(both.to_frame()["run"]) == ["one", "two"]
    assert repr(both) == "Comparison(one, two)"
    with pytest.raises(UsageError, match="two runs or more"):
        taxlens.compare(folders[:1])

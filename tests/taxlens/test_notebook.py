"""What a notebook does with activations: arrays of every kind, own probes, cells that run twice."""

import sys
import types

import numpy as np
import pytest

import taxlens
from taxlens.core.errors import TaxlensError, UsageError
from taxlens.core.progress import SILENT
from taxlens.face.notebook_progress import face_progress


@pytest.fixture(scope="module")
def pair():
    return taxlens.load_pair("demo:base", "demo:planted")


@pytest.fixture(scope="module")
def facts():
    return taxlens.suite("demo:facts").subset(range(48))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store") / "acts.h5"


@pytest.fixture(scope="module")
def acts(pair, facts, store):
    return pair.capture(facts, to=store, templates=("plain",))


def test_an_address_gives_both_models_arrays(acts):
    layer = acts["resid_post", 2]
    n = len(acts.rows)
    assert layer.base.shape == layer.aligned.shape == (n, acts.store.shape("resid_post")[0])
    assert np.array_equal(layer.base, acts.store.read("resid_post", 2))
    assert np.array_equal(layer.to_numpy()[1], acts.store.read("resid_post", 2, model="aligned"))
    assert np.array_equal(np.asarray(layer), layer.to_numpy())
    assert layer.to_torch("base").shape == layer.base.shape
    assert not np.array_equal(layer.base, layer.aligned)


def test_several_layers_come_with_an_axis_of_their_own(acts):
    width = acts.store.shape("resid_post")[0]
    n = len(acts.rows)
    assert acts["resid_post", 1:3].to_numpy().shape == (2, 2, n, width)
    assert acts["resid_post", [0, 3]].to_numpy("base").shape == (2, n, width)
    assert acts["resid_post"].to_numpy("base").shape == (4, n, width)
    assert np.array_equal(acts["resid_post", -1].base, acts["resid_post", 3].base)


def test_rows_are_chosen_by_what_they_are(acts):
    prompts = acts["resid_post", 0].where(kind="prompt")
    assert len(prompts) == 48
    assert set(prompts.rows["kind"]) == {"prompt"}
    assert prompts.base.shape[0] == 48


def test_a_layer_or_site_that_is_not_held_is_refused(acts):
    with pytest.raises(UsageError, match="0 to 3"):
        acts["resid_post", 9]
    with pytest.raises(UsageError, match="resid_post"):
        acts["resid_pots", 0]
    with pytest.raises(UsageError, match="model"):
        acts["resid_post", 0].to_numpy("other")


def test_xarray_names_every_axis_and_carries_the_rows(acts):
    pytest.importorskip("xarray")
    array = acts["resid_post", 1:3].to_xarray()
    assert array.dims == ("model", "layer", "row", "d_model")
    assert array.sel(model="aligned", layer=2).values == pytest.approx(acts["resid_post", 2].aligned)
    assert list(array.coords["suite"].values) == list(acts.rows["suite"])


@pytest.mark.filterwarnings("ignore")
def test_anndata_holds_both_models_as_layers(acts):
    pytest.importorskip("anndata")
    data = acts["resid_post", 2].to_anndata()
    assert np.array_equal(data.X, acts["resid_post", 2].base)
    assert np.array_equal(data.layers["aligned"], acts["resid_post", 2].aligned)
    with pytest.raises(UsageError, match="one layer"):
        acts["resid_post"].to_anndata()


def test_an_estimator_of_scikit_learn_is_a_probe(acts):
    linear_model = pytest.importorskip("sklearn.linear_model")
    estimator = linear_model.LogisticRegression(C=0.1, max_iter=500)
    own = acts.probe("correct", probe=estimator, permutations=0)
    assert not hasattr(estimator, "coef_")
    assert set(own.to_frame().query("control == 'none'")["probe"]) == {"LogisticRegression"}
    known = acts.probe("correct", probe="logistic", permutations=0)

    def auc(curve):
        rows = curve.to_frame()
        rows = rows[(rows["metric"] == "auc") & (rows["control"] == "none") & (rows["fitted_on"] == rows["read_on"])]
        return rows.sort_values(["fitted_on", "layer"])["value"].to_numpy()

    assert np.abs(auc(own) - auc(known)).max() < 0.15


def test_an_estimator_class_or_a_regressor_is_refused(acts):
    linear_model = pytest.importorskip("sklearn.linear_model")
    with pytest.raises(UsageError, match="no probe"):
        acts.probe("correct", probe=linear_model.LogisticRegression)
    with pytest.raises(UsageError, match="does not fit"):
        acts.probe("correct", probe=linear_model.Ridge())


def test_a_probe_leads_with_its_auc_and_not_with_another_score(acts):
    curve = acts.probe("correct", permutations=0)
    rows = curve.to_frame().query("metric == 'auc' and control == 'none' and fitted_on == 'base' and read_on == 'base'")
    assert f"base auc {rows['value'].max():.3f}" in repr(curve)


def test_similarity_states_each_measures_own_range(acts):
    words = repr(acts.similarity(["cka", "drift"]))
    assert "cka 0." in words or "cka 1." in words
    assert "drift" in words


def test_a_cell_runs_twice(pair, facts, store, acts):
    with pytest.raises(UsageError, match="reuse"):
        pair.capture(facts, to=store, templates=("plain",))
    again = pair.capture(facts, to=store, templates=("plain",), exist="reuse")
    assert np.array_equal(again["resid_post", 1].base, acts["resid_post", 1].base)
    with pytest.raises(TaxlensError):
        pair.capture(facts.subset(range(20)), to=store, templates=("plain",), exist="reuse")


def test_a_suite_shows_itself_in_a_line_and_a_small_table(facts):
    assert repr(facts).startswith("Suite('facts', 48 items in ")
    assert len(repr(facts)) < 120
    page = facts._repr_html_()
    assert page.count("<tr>") == 6
    assert "43 more items" in page
    hostile = taxlens.Suite("x", (taxlens.Item("<b>", "<i>", text="<script>alert(1)</script>"),))
    assert "<script>" not in hostile._repr_html_()


def test_results_of_plain_arrays_plot_too():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 96), np.repeat(np.arange(24), 4)
    X = rng.normal(size=(96, 6)) + labels[:, None]
    from taxlens.probes.pair.probe_pair import probe_pair
    from taxlens.probes.similarity.similarity import similarity

    probed = probe_pair({0: (X, X + 0.1), 1: (X, 2 * X)}, labels, groups, permutations=9)
    assert set(probed.plot().plotted["layer"]) == {0, 1}
    assert len(similarity((X, 2 * X), measures=["cka"]).plot(width=3.03).plotted) == 1


def test_a_probe_shows_one_row_a_layer(acts):
    shown = acts.probe("correct", permutations=9).shown_frame()
    assert list(shown["layer"]) == [0, 1, 2, 3]
    assert {"auc, base", "auc, aligned"} <= set(shown.columns)


def test_a_name_of_no_drawing_is_answered_with_those_there_are(pair, facts):
    tax = pair.tax(facts)
    assert tax.plot("tax_nll").plotted["metric"].unique().tolist() == ["nll"]
    assert tax.plot().plotted["metric"].unique().tolist() == ["probability"]
    with pytest.raises(UsageError, match="tax_probability"):
        tax.plot("tax_bits")


def test_a_notebook_shows_bars_and_a_script_nothing(monkeypatch, capsys):
    assert face_progress() is SILENT
    kernel = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    progress = face_progress()
    with progress.task("score facts, base, plain", total=4, unit="rows") as task:
        task.advance(0, note="gradient 1 of 3")
        task.advance(4)
    said = capsys.readouterr().err
    assert "score facts, base, plain" in said
    assert "gradient 1 of 3" in said
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert face_progress() is SILENT

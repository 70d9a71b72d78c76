"""Directions that spectra find are named, tested and kept; layers are compared all with all."""

import numpy as np
import pandas as pd
import pytest

import taxlens
from taxlens.analysis.directions.naming import Vocabulary
from taxlens.core.errors import StoreError, UsageError
from taxlens.figures.style import Drawn
from taxlens.probes.kinds.probe import Probe
from taxlens.probes.spectra.spectra import Spectra, Spectrum
from taxlens.stages.probe.probe_files import (
    load_directions,
    load_probes,
    probe_directions,
    save_directions,
    save_probes,
)
from taxlens.stages.similarity.direction_names import leading_directions
from taxlens.stages.similarity.direction_tests import direction_test, strongest_layers
from taxlens.stages.similarity.directions_figure import draw_direction_effects, draw_direction_names
from taxlens.stages.similarity.similarity_map_figure import draw_similarity_map
from taxlens.stages.similarity.similarity_tables import DIRECTION_EFFECTS
from taxlens.stages.similarity.store_similarity import similarity_store

ROWS = 40


def spectrum(name, layer, values, low=0.9, high=0.1):
    values = np.array(values)
    d = len(values)
    return Spectrum(name, layer, "resid_post", values, np.full(d, low), np.full(d, high), np.eye(d), 100)


@pytest.fixture(scope="module")
def pair():
    return taxlens.load_pair("demo:base", "demo:planted")


@pytest.fixture(scope="module")
def facts():
    return taxlens.suite("demo:facts").subset(range(0, 192, 4))


@pytest.fixture(scope="module")
def acts(pair, facts, tmp_path_factory):
    sites = ("resid_post", "head_z")
    return pair.capture(
        facts, to=tmp_path_factory.mktemp("store") / "acts.h5", templates=("plain",), sites=sites, positions="all"
    )


@pytest.fixture(scope="module")
def compared(acts, pair):
    return similarity_store(
        acts.store, measures=("cka", "drift"), map=("cka",), map_rows=200, spectra=True, name_directions=2,
        vocabulary=Vocabulary.of_model(pair.models.base),
    )  # fmt: skip


def test_every_layer_is_compared_with_every_layer_and_matched_ones_once(compared):
    rows = compared.similarity
    rows = rows[(rows["measure"] == "cka") & (rows["site"] == "resid_post")]
    assert len(rows) == 16
    assert not rows.duplicated(["layer_base", "layer_aligned"]).any()
    crossed = rows[rows["layer_base"] != rows["layer_aligned"]]
    assert crossed["n_items"].max() < rows["n_items"].max()


def test_heads_are_compared_one_by_one_beside_whole_rows(compared):
    rows = compared.similarity
    heads = rows[(rows["site"] == "head_z") & rows["head"].notna()]
    assert sorted(heads["head"].unique()) == [0, 1, 2, 3]
    assert len(heads[heads["measure"] == "cka"]) == 16
    assert rows.loc[rows["site"] == "resid_post", "head"].isna().all()


def test_drift_is_told_by_token_position(compared):
    places = compared.positions[compared.positions["site"] == "resid_post"]
    assert places["position"].nunique() > 3
    first = places[(places["layer"] == 0) & (places["position"] == places["position"].min())]
    assert first["cosine"].between(-1, 1).all()
    drift = compared.similarity.query("measure == 'drift' and site == 'resid_post' and layer_base == 0")["n_items"]
    assert places[places["layer"] == 0]["n_items"].sum() == drift.iloc[0]


def test_directions_beyond_the_null_are_named_by_tokens_and_items(compared):
    names = compared.names
    assert set(names.loc[names["site"] == "resid_post", "kind"]) == {"token", "item"}
    assert set(names.loc[names["site"] == "head_z", "kind"]) <= {"item"}
    assert names["rank"].max() <= 1
    assert names.loc[names["kind"] == "item", "name"].str.startswith("facts/").all()


def test_a_model_against_itself_has_no_direction_to_name(pair, facts, tmp_path):
    same = taxlens.load_pair("demo:base", "demo:base")
    store = same.capture(facts, to=tmp_path / "same.h5", templates=("plain",)).store
    found = similarity_store(store, measures=(), spectra=True, name_directions=3)
    assert found.names.empty
    assert found.directions("plain", "resid_post", top=3) == []
    effects = direction_test(same.models, [facts], found.found, found.centres, template="plain")
    assert effects.empty
    assert tuple(effects.columns) == DIRECTION_EFFECTS.names


def test_a_direction_is_named_by_the_probe_it_follows(acts, compared, tmp_path):
    direction = compared.directions("plain", "resid_post", top=1)[0]
    probe = Probe("ridge", "binary", direction.vector[None], np.zeros(1), ("no", "yes"), source={})
    about = {"suite": "facts", "template": "plain", "label": "truth", "site": "resid_post", "head": None}
    save_probes(
        {("base", direction.layer): probe, ("aligned", direction.layer): probe}, tmp_path / "a.safetensors", about=about
    )
    known = probe_directions(tmp_path)
    assert list(known["resid_post", direction.layer]) == ["facts truth plain"]
    found = similarity_store(acts.store, measures=(), spectra=True, name_directions=1, probes=known)
    row = found.names.query("kind == 'probe'").iloc[0]
    assert (row["name"], row["layer"]) == ("facts truth plain", direction.layer)
    assert abs(row["value"]) == pytest.approx(1)


def test_the_layers_that_leave_their_null_furthest_come_first():
    spectra = Spectra(
        (spectrum("gain", 0, [0.8, 0.95]), spectrum("gain", 1, [0.1, 0.2]), spectrum("loss", 2, [0.05, 0]))
    )
    assert strongest_layers(spectra, count=5) == [1, 0]
    assert [one.layer for one in leading_directions(spectra, top=1)] == [0, 1]


def test_tested_directions_stand_beside_random_ones(pair, facts, compared):
    frame = direction_test(
        pair.models, [facts], compared.found, compared.centres, template="plain", top=2, items=12, metrics=("nll",)
    )  # fmt: skip
    assert list(frame["intervention"]) == ["ablate", "inject"]
    assert frame["n_items"].tolist() == [12, 12]
    assert frame[["value", "low", "high", "random", "random_extreme"]].notna().all().all()
    assert isinstance(draw_direction_effects(frame, metric="nll"), Drawn)
    with pytest.raises(UsageError, match="tested  *nll"):
        draw_direction_effects(frame, metric="accuracy")


def test_directions_come_back_from_their_file_and_damage_is_told(compared, tmp_path):
    directions = compared.directions("plain", "resid_post", top=2)
    path = save_directions(directions, tmp_path / "plain.safetensors")
    again = load_directions(path)
    assert [one.address for one in again] == [one.address for one in directions]
    np.testing.assert_array_equal(again[0].vector, directions[0].vector)
    assert again[0].source["spectrum"] == "gain"
    path.with_suffix(".json").write_text('{"format": 1, "directions": []}', encoding="utf-8")
    with pytest.raises(StoreError, match="directions cannot be read"):
        load_directions(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(StoreError, match="write them again"):
        load_directions(path)


def test_probes_come_back_from_their_file_as_they_were(tmp_path):
    weights = np.arange(6.0).reshape(3, 2)
    probe = Probe("lda", "multiclass", weights, np.ones(3), ("a", 2, "c"), 0.1, {"layer": 4, "n_items": np.int64(7)})
    path = save_probes({("aligned", 4): probe}, tmp_path / "p.safetensors", about={"site": "head_z", "head": 3})
    again = load_probes(path)["aligned", 4]
    np.testing.assert_array_equal(again.coefficients, weights)
    assert (again.kind, again.classes, again.penalty) == ("lda", ("a", 2, "c"), 0.1)
    assert again.source == {"layer": 4, "n_items": 7, "site": "head_z", "head": 3}
    assert probe_directions(tmp_path, model="aligned") == {}
    path.write_bytes(b"not safetensors")
    with pytest.raises(StoreError, match="probes cannot be read"):
        load_probes(path)


def test_a_probe_of_several_classes_gives_a_direction_a_class(tmp_path):
    probe = Probe("ridge", "multiclass", np.eye(3), np.zeros(3), ("a", "b", "c"), source={})
    about = {"suite": "s", "label": "l", "template": "plain", "site": "resid_post", "head": None}
    save_probes({("base", 1): probe}, tmp_path / "p.safetensors", about=about)
    assert list(probe_directions(tmp_path)["resid_post", 1]) == ["s l plain = a", "s l plain = b", "s l plain = c"]


def test_the_notebook_draws_a_map_and_gives_directions(acts):
    found = acts.similarity("cka", layers="all")
    assert "4 x 4 layers" in repr(found)
    drawn = found.plot()
    assert len(drawn.plotted) == 16
    assert "not the layer of the same depth" in drawn.caption
    with pytest.raises(UsageError, match="layers"):
        acts.similarity("cka", layers="some")
    curve = acts.similarity("cka", spectra=True, name_directions=1)
    assert {"spectra", "drift_positions", "directions"} <= set(curve.more)
    assert curve.directions()[0].site == "resid_post"


def test_the_notebook_keeps_probes_and_their_results(acts, tmp_path):
    curve = acts.probe("correct", permutations=19)
    case = ("facts", "plain", "correct", "resid_post", None)
    assert curve.results[case].layers == (0, 1, 2, 3)
    assert ("facts", "plain", "correct", "head_z", 2) in curve.results
    written = curve.save(tmp_path / "probes")
    assert {"facts_plain_correct_resid_post.safetensors", "facts_plain_correct_head_z_h2.safetensors"} <= {
        path.name for path in written
    }
    np.testing.assert_array_equal(
        load_probes(tmp_path / "probes" / "facts_plain_correct_resid_post.safetensors")["base", 2].coefficients,
        curve.results[case].probes["base", 2].coefficients,
    )
    drawn = curve.plot()
    assert "ceiling of the cosine" in set(drawn.plotted["series"])
    assert set(curve.to_frame()["head"].dropna()) == {0, 1, 2, 3}


def test_a_map_needs_layers_that_differ():
    rows = [(layer, layer, "cka", 0.9, 10) for layer in range(3)]
    frame = pd.DataFrame(rows, columns=["layer_base", "layer_aligned", "measure", "value", "n_items"])
    with pytest.raises(UsageError, match="matched layers alone"):
        draw_similarity_map(frame)


def test_names_within_reach_of_chance_are_starred():
    names = [("gain", 0, "token", "+", " dog", 3.0, 4.0), ("gain", 0, "probe", "-", "truth", -0.9, 0.2)]
    frame = pd.DataFrame(names, columns=["spectrum", "rank", "kind", "end", "name", "value", "null"])
    frame = frame.assign(template="plain", site="resid_post", layer=3)[
        ["template", "site", "layer", "spectrum", "rank", "kind", "end", "name", "value", "null"]
    ]
    drawn = draw_direction_names(frame)
    texts = [text.get_text() for text in drawn.figure.axes[0].texts]
    assert any("' dog' +3*" in text for text in texts)
    assert any("truth -0.9" in text and "*" not in text for text in texts)
    with pytest.raises(UsageError, match="none is named"):
        draw_direction_names(frame.iloc[:0])

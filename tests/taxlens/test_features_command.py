"""`taxlens features` from a config to tables, figures and words; what it refuses, and in which words."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import taxlens
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.dictionaries.dictionary_files import write_dictionary
from taxlens.analysis.features.feature_tables import FEATURE_TABLES
from taxlens.cli.app import run_app
from taxlens.runs.folder import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a dictionary of random directions for the embedded pair."""
    path = tmp_path_factory.mktemp("features")
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(192, 96, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    zero = torch.zeros(192), torch.zeros(1, 96)
    one = Dictionary(
        decoder.T[None].clone(), decoder[None], *zero, kind="topk", k=6, role="difference", site="resid_post", layer=1
    )
    write_dictionary(one, path / "random")
    torch.save({"encoder.weight": torch.ones(3, 2)}, path / "ae.pt")
    return path


def config(folder, **features):
    given = {
        "name": "f", "pair": {"base": "demo:base", "aligned": "demo:planted"}, "templates": ["plain"],
        "suites": [{"name": "facts", "file": "demo:facts", "kind": "capability"}],
        "tax": {"metrics": ["probability"], "bootstrap": 200}, "stages": ["tax", "features", "figures", "report"],
        "features": features,
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def test_command_writes_tables_figures_and_a_report_that_says_who_returned_most(folder, tmp_path, capsys):
    path = config(
        folder, dictionaries=[{"path": "random", "name": "mine"}], items=10, draws=1, leading=3, components=1, listed=6,
        metrics=["probability"], max_gradients=7,
    )  # fmt: skip
    assert run_app(["run", str(path), "--out", str(tmp_path / "run")]) == 0
    assert "of it on held-out items" in capsys.readouterr().out
    run = Run.open(tmp_path / "run")
    for table in FEATURE_TABLES:
        assert len(run.read(table)) > 0, table.name
    assert not run.table("features_closure")["gate"].any()
    names = {p.name.split("_facts")[0] for p in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"features", "latent", "feature_map", "given_back"} <= names
    text = (tmp_path / "run" / "report.html").read_text()
    assert "of it on held-out items" in text
    assert "may not be read one by one" in text


@pytest.mark.parametrize(
    "features, said",
    [
        ({}, "no dictionary is named"),
        ({"dictionaries": [{"path": "absent"}]}, "no such dictionary"),
        ({"dictionaries": [{"path": "ae.pt"}]}, "taxlens features convert"),
        ({"dictionaries": [{"path": "random"}], "suites": ["fact"]}, "facts"),
        ({"train": {"corpus": ["none.txt"], "layers": [1]}}, "corpus is missing"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(folder, tmp_path, capsys, features, said):
    assert run_app(["features", str(config(folder, **features)), "--out", str(tmp_path / "run")]) != 0
    assert said in capsys.readouterr().err


def test_convert_says_what_it_wrote(tmp_path, capsys):
    state = {"W_enc": torch.randn(4, 9), "W_dec": torch.randn(9, 4), "b_enc": torch.zeros(9), "b_dec": torch.zeros(4)}
    torch.save(state, tmp_path / "sae.pt")
    assert run_app(["features", "convert", str(tmp_path / "sae.pt"), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["width"] == 9


def test_pair_reads_a_folder_and_draws_its_waterfall(folder):
    pair = taxlens.load_pair("demo:base", "demo:planted")
    suite = taxlens.suite("demo:facts")
    found = pair.features(
        suite, folder / "random", metrics=("probability",), items=6, draws=0, cut=False, components=0, named=3,
        max_gradients=7,
    )  # fmt: skip
    drawn = found.plot()
    assert drawn.plotted["label"].iloc[-1] == "measured tax"
    ends = drawn.plotted.iloc[-2]
    assert ends["start"] + ends["effect"] == pytest.approx(drawn.plotted["effect"].iloc[-1])

"""A capture in parts, from the command line: each part by itself, then merged to the bytes of one capture."""

import hashlib
import json
import re

import h5py
import numpy as np
import pytest

from taxlens.activations.store.store import Store
from taxlens.cli.app import run_app
from taxlens.cli.stores import part_of
from taxlens.core.errors import UsageError
from taxlens.runs.folder import Run

CONFIG = """name: parts
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: few.jsonl}
  - {name: more, file: more.jsonl}
templates: [plain]
capture: {positions: all, layers: [0, 2], shard_bytes: 20000}
similarity: {measures: [cka], spectra: false, map: []}
"""
SHARDS = "activations.shards/shard-*.h5"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from taxlens import demo

    folder = tmp_path_factory.mktemp("config")
    lines = demo.resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines()
    (folder / "few.jsonl").write_text("\n".join(lines[:11]) + "\n", encoding="utf-8")
    (folder / "more.jsonl").write_text("\n".join(lines[11:20]) + "\n", encoding="utf-8")
    (folder / "parts.yaml").write_text(CONFIG, encoding="utf-8")
    return folder / "parts.yaml"


@pytest.fixture(scope="module")
def whole(config):
    out = config.parent / "whole"
    assert run_app(["capture", str(config), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def parts(config):
    folders = []
    for number in (1, 2, 3):
        out = config.parent / f"part{number}"
        assert run_app(["capture", str(config), "--shard", f"{number}/3", "--out", str(out)]) == 0
        folders.append(out)
    return folders


def hashes(folder) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob(SHARDS))]


def test_three_parts_merged_are_the_bytes_of_one_capture_and_the_run_goes_on(config, whole, parts, tmp_path, capsys):
    out = tmp_path / "merged"
    assert run_app(["merge", *(str(parts[n]) for n in (2, 0, 1)), "--out", str(out)]) == 0
    assert "from 3 parts" in capsys.readouterr().out
    assert len(hashes(out)) > 3
    assert hashes(out) == hashes(whole)
    with h5py.File(out / "activations.h5") as merged, h5py.File(whole / "activations.h5") as one:
        for name in ("base/resid_post", "aligned/resid_post", "rows/item", "rows/position"):
            np.testing.assert_array_equal(merged[name][...], one[name][...])
    assert Run.open(out).verify() == []
    assert run_app(["verify", str(out)]) == 0
    assert run_app(["verify", str(out / "activations.h5")]) == 0
    assert run_app(["similarity", str(out)]) == 0
    assert len(Run.open(out).table("similarity")) > 0


def test_a_part_holds_its_items_only_and_says_so(whole, parts, capsys):
    rows = []
    for part in parts:
        with Store.open(part) as store:
            rows.append(store.rows)
    with Store.open(whole) as store:
        items = [(row.suite, row.item) for row in store.rows.itertuples()]
    assert [(row.suite, row.item) for frame in rows for row in frame.itertuples()] == items
    assert Run.open(parts[1]).manifest["part"] == [2, 3]
    capsys.readouterr()
    assert run_app(["inspect", str(parts[1] / "activations.h5"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == len(rows[1])
    assert said["items"][2] == 20
    assert run_app(["inspect", str(parts[1])]) == 0
    assert "of 20" in capsys.readouterr().out


def test_config_compresses_the_store_and_places_the_models_by_a_map(config, whole, tmp_path):
    text = CONFIG.replace("planted}", 'planted, device: {"": cpu}}').replace("positions", "compress: gzip, positions")
    other = config.with_name("packed.yaml")
    other.write_text(text, encoding="utf-8")
    assert run_app(["capture", str(other), "--out", str(tmp_path / "r")]) == 0
    with Store.open(tmp_path / "r") as packed, Store.open(whole) as plain:
        np.testing.assert_array_equal(packed.read("resid_post", 2), plain.read("resid_post", 2))
        assert packed.manifest["identity"]["compress"] == "gzip"


def test_a_part_resumes_as_the_part_that_it_is(config, parts, tmp_path):
    (parts[0] / "activations.shards" / "shard-00000.h5").unlink()
    assert run_app(["capture", str(parts[0]), "--resume"]) == 0
    assert Run.open(parts[0]).verify() == []


def test_later_stages_on_one_part_are_refused_with_what_to_do(parts, capsys):
    assert run_app(["similarity", str(parts[0])]) == 2
    said = capsys.readouterr().err
    assert "part 1 of 3" in said
    assert "taxlens merge" in said


def test_a_merge_that_lacks_a_part_leaves_nothing(parts, tmp_path, capsys):
    assert run_app(["merge", str(parts[0]), str(parts[1]), "--out", str(tmp_path / "m")]) == 3
    assert "parts of the capture are missing" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    assert run_app(["merge", str(parts[0]), str(parts[2]), "--out", str(tmp_path / "m")]) == 3
    assert "do not join" in capsys.readouterr().err


def test_parts_of_another_config_are_not_merged(config, parts, tmp_path, capsys):
    other = tmp_path / "other"
    options = ["--set", "seed=3", "--shard", "2/3", "--out", str(other)]
    assert run_app(["capture", str(config), *options]) == 0
    assert run_app(["merge", str(parts[0]), str(other), str(parts[2]), "--out", str(tmp_path / "m")]) == 3
    said = capsys.readouterr().err
    assert "parts of different runs" in said
    assert "seed" in said


def test_more_parts_than_files_are_refused_with_the_size_that_would_do(config, tmp_path, capsys):
    options = ["--set", "capture.shard_bytes=100000000", "--shard", "1/4", "--out", str(tmp_path / "r")]
    assert run_app(["capture", str(config), *options]) == 2
    said = capsys.readouterr().err
    assert "fewer shards than parts" in said
    fix = said[said.index("capture.shard_bytes=") :].split()[0]
    assert run_app(["capture", str(config), "--set", fix, "--shard", "1/4", "--out", str(tmp_path / "s")]) == 0


def test_dry_run_of_a_part_tells_its_own_size_and_writes_nothing(config, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert run_app(["capture", str(config), "--dry-run", "--json"]) == 0
    all_of_it = json.loads(capsys.readouterr().out)["capture"]
    assert run_app(["capture", str(config), "--shard", "2/3", "--dry-run", "--json"]) == 0
    part = json.loads(capsys.readouterr().out)["capture"]
    sizes = [int(re.search(r"(\d+) rows", said)[1]) for said in (part, all_of_it)]
    assert sizes[0] < sizes[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "1/0", "-1/3", ""])
def test_a_shard_option_that_names_no_part_is_refused(text):
    with pytest.raises(UsageError, match="1/8, the first of eight"):
        part_of(text)

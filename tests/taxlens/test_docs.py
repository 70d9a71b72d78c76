"""Every code block of README.md and docs/*.md runs: Python in one namespace a page, `taxlens` lines in process, configs and items as such.

A block whose info string says `skip` needs the network or real weights; `slow` ones are whole jobs, run with the slow
tests. Pages assume names that their text introduces (a pair, a suite, a run folder): `names_for` gives them, small ones of the
embedded world.
"""

import json
import re
import shlex
import shutil
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest

import taxlens
from taxlens.activations.items.items import read_suite, write_suite
from taxlens.cli.app import run_app
from taxlens.config.schema import build_config
from taxlens.config.yaml_file import read_yaml
from taxlens.demo import resolve
from taxlens.face.pair import Pair

ROOT = Path(__file__).parents[2]
PATHS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.M | re.S)
LANGUAGES = {"python", "sh", "console", "yaml", "json", "text"}
SMALL = 24


def blocks(path):
    return [(info.strip(), text) for info, text in BLOCK.findall(path.read_text(encoding="utf-8"))]


PAGES_WITH_CODE = [path for path in PATHS if any(info != "text" for info, _ in blocks(path))]


@pytest.fixture(scope="module")
def small():
    """Small suites of the embedded world, by name."""
    found = {}
    for name in ("facts", "harm", "harmless"):
        whole = taxlens.suite(f"demo:{name}")
        found[name] = whole.subset(np.linspace(0, len(whole) - 1, SMALL).astype(int))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, small):
    """A working folder as the pages assume it: files and model folders by the names that they use, and a finished run."""
    folder = tmp_path_factory.mktemp("docs")
    for name, file in (("facts", "facts.jsonl"), ("facts", "items.jsonl"), ("harm", "harm.jsonl")):
        write_suite(small[name], folder / file)
    for path in ("path/or/hub-id/of", "path/to", "path"):
        (folder / path).mkdir(parents=True, exist_ok=True)
        for name, model in (("base", "demo:base"), ("aligned", "demo:planted")):
            (folder / path / name).symlink_to(resolve(model))
    config = {
        "name": "demo", "pair": {"base": "demo:base", "aligned": "demo:planted"}, "templates": ["plain"],
        "suites": [{"name": "facts", "file": "facts.jsonl"}, {"name": "harm", "file": "harm.jsonl", "kind": "benefit"}],
        "tax": {"bootstrap": 200}, "probes": {"permutations": 9}, "similarity": {"test_layers": 0},
        "attribution": {"levels": ["component"], "metrics": ["probability"]},
    }  # fmt: skip
    (folder / "demo.yaml").write_text(json.dumps(config), encoding="utf-8")
    taxlens.run(folder / "demo.yaml", out=folder / "runs" / "demo")
    shutil.copytree(folder / "runs" / "demo", folder / "runs" / "other")
    shutil.copy(folder / "runs" / "demo" / "activations.h5", folder)
    shutil.copytree(folder / "runs" / "demo" / "activations.shards", folder / "activations.shards")
    return folder


def names_for(page, small, place):
    """What a page's Python blocks assume."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 4)
    labels = rng.integers(0, 2, 64)
    arrays = {"X_base": rng.normal(size=(64, 8)), "X_aligned": rng.normal(size=(64, 8)), "labels": labels, "groups": groups,
              "last_tokens": rng.integers(0, 5, 64)}  # fmt: skip
    known = {"taxlens": taxlens, "base": "demo:base", "aligned": "demo:planted", "suite": small["facts"]}
    if page in ("attribution.md", "frontier.md", "state.md"):
        known["pair"] = taxlens.load_pair("demo:base", "demo:planted")
        known["suites"] = list(small.values())
    if page == "figures.md":
        known["run"] = taxlens.open_run(place / "runs" / "demo")
    if page == "similarity.md":
        store = taxlens.open_activations(place / "runs" / "demo" / "activations.h5").store
        known |= {"store": store, "groups": store.rows["group"].to_numpy()}
    return known | (arrays if page == "probes.md" else {})


def run_shell(text, place, capsys):
    """Write the files of here-documents, run `taxlens` lines in process; comments and prompts are not commands."""
    text = re.sub(r"cat > (\S+) <<'(\w+)'\n(.*?)\n\2\n", lambda m: _file(place / m[1], m[3]), text + "\n", flags=re.S)
    for line in text.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if not words:
            continue
        assert words[0] == "taxlens", f"only taxlens lines are run: {line}"
        code = run_app(words[1:])
        assert code == 0, f"{line}\n{capsys.readouterr().err}"


def _file(path, text):
    path.write_text(text + "\n", encoding="utf-8")
    return ""


def test_every_block_says_what_it_is():
    for path in PATHS:
        for info, text in blocks(path):
            assert (info.split() or [""])[0] in LANGUAGES, f"{path.name}: {text[:60]!r}"
            assert set(info.split()[1:]) <= {"skip", "slow"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", PAGES_WITH_CODE, ids=lambda path: path.name)
def test_every_block_of_a_page_runs(path, small, place, tmp_path, monkeypatch, capsys):
    place = shutil.copytree(place, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(place)
    whole = taxlens.suite
    monkeypatch.setattr(taxlens, "suite", lambda file, **more: _thin(whole(file, **more)))
    monkeypatch.setattr(Pair, "frontier", partialmethod(Pair.frontier, draws=2, bootstrap=200))
    known = names_for(path.name, small, place)
    for info, text in blocks(path):
        language, *marks = info.split()
        if {"skip", "slow"} & set(marks) or language == "text":
            continue
        if language == "python":
            exec(compile(text, f"{path.name}", "exec"), known)
        elif language in ("sh", "console"):
            run_shell(text, place, capsys)
        elif language == "yaml":
            (place / "mine.yaml").write_text(text, encoding="utf-8")
            build_config(read_yaml(place / "mine.yaml"))
        elif language == "json":
            (place / "block.jsonl").write_text(text, encoding="utf-8")
            assert len(read_suite(place / "block.jsonl").items) == len(text.strip().splitlines())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_block_that_is_a_whole_job_runs(place, tmp_path, monkeypatch, capsys):
    place = shutil.copytree(place, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(place)
    whole = [text for path in PATHS for info, text in blocks(path) if "slow" in info.split()]
    assert whole
    for text in whole:
        run_shell(text, place, capsys)


def _thin(suite):
    return suite.subset(np.linspace(0, len(suite) - 1, min(len(suite), SMALL)).astype(int))


def test_every_identifier_on_a_page_is_in_the_references():
    listed = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    for path in PATHS:
        for found in re.findall(r"arXiv:?\s+(\d{4}\.\d{5})", path.read_text(encoding="utf-8")):
            assert found in listed, f"{path.name}: {found}"


def test_every_entry_of_the_kits_bibliography_is_in_the_references():
    listed = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    entries = (ROOT / "taxlens" / "report" / "templates" / "references.bib").read_text(encoding="utf-8")
    for key, identifier in re.findall(r"@\w+\{([^,]+),.*?(?:eprint=\{([\d.]+)\}.*)?$", entries, re.M):
        assert f"`{key}`" in listed
        assert identifier in listed


def test_links_between_pages_lead_somewhere():
    for path in PATHS:
        for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_pages_name_no_figure_that_is_not_there():
    from taxlens.stages import FIGURES

    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z0-9_, ]+) \|", page, re.M)
    assert {name for row in rows for name in row.split(", ")} <= set(FIGURES)

"""A run folder holds results of one config, one pair, one set of items and one software, or says that it does not."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from taxlens.cli.app import run_app
from taxlens.core.artifacts import atomic_path
from taxlens.core.errors import CheckError, UsageError
from taxlens.demo import catalogue
from taxlens.runs import manifest as manifests
from taxlens.runs import running
from taxlens.runs.folder import Run
from taxlens.runs.provenance import section_of
from taxlens.runs.recording import WRITING
from taxlens.runs.running import run
from taxlens.stages import STAGES, TABLES

pytestmark = pytest.mark.made_up_tables
CONFIG = """name: small
pair: {base: base, aligned: aligned}
suites:
  - {name: facts, file: facts.jsonl}
templates: [plain]
stages: [tax, attribute, report]
"""
ITEM = '{{"id": "{n}", "group": "{n}", "prompt": "a", "choices": [" b", " c"], "gold": 0}}\n'


@pytest.fixture
def place(tmp_path):
    """A folder with a config, a suite, and two checkpoints of its own."""
    (tmp_path / "c.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "facts.jsonl").write_text("".join(ITEM.format(n=n) for n in range(4)), encoding="utf-8")
    for name in ("base", "aligned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
        (tmp_path / name / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
        (tmp_path / name / "tokenizer.json").write_text("{}", encoding="utf-8")
    return tmp_path


TABLE = {"tax": "tax", "attribute": "closure", "report": "path"}


class Stages:
    """The stages in small: each writes one table of one number, from the table of the one before it."""

    def __init__(self, put):
        self.put, self.order, self.compute = put, [], {}
        for name, reads in (("tax", None), ("attribute", "tax"), ("report", "closure")):
            self.compute[name] = self._writer(name, reads)

    def _writer(self, name, reads):
        def stage(job, section):
            self.order.append(name)
            value = job.run.table(reads)[number_of(reads)].sum() if reads else 1.0
            self.write(job, TABLE[name], value + 1)

        return stage

    def write(self, job, table, value=1.0):
        self.put(job.run, table, pd.DataFrame({number_of(table): [float(value)]}))


def number_of(table):
    """The first column of numbers of a table."""
    return next(c for c in TABLES[table].required if TABLES[table].columns[c].type is float)


@pytest.fixture
def small(monkeypatch, put):
    found = Stages(put)
    declared = [
        replace(s, compute=lambda job, section, name=s.name: found.compute[name](job, section), figures=())
        for s in STAGES
        if s.name in found.compute
    ]
    monkeypatch.setattr(running, "STAGES", tuple(declared))
    return found


@pytest.fixture
def done(small):
    """The order in which the stages ran."""
    return small.order


def weights(place, monkeypatch):
    (place / "aligned" / "model.safetensors").write_bytes(b"other")


def base_weights(place, monkeypatch):
    (place / "base" / "model.safetensors").write_bytes(b"other")


def tokenizer(place, monkeypatch):
    (place / "aligned" / "tokenizer.json").write_text('{"a": 1}', encoding="utf-8")


def own_template(place, monkeypatch):
    (place / "aligned" / "chat_template.jinja").write_text("{{ 1 }}", encoding="utf-8")


def model_config(place, monkeypatch):
    (place / "base" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")


def suite_cut(place, monkeypatch):
    (place / "facts.jsonl").write_text(ITEM.format(n=0), encoding="utf-8")


def suite_edited(place, monkeypatch):
    text = (place / "facts.jsonl").read_text(encoding="utf-8")
    (place / "facts.jsonl").write_text(text.replace('"gold": 0', '"gold": 1', 1), encoding="utf-8")


def version(place, monkeypatch):
    known = manifests.versions()
    monkeypatch.setattr("taxlens.runs.context.versions", lambda: known | {"torch": "0.0.1"})


def setting(*overrides):
    def change(place, monkeypatch):
        return overrides

    change.__name__ = " ".join(overrides)
    return change


def another_pair(place, monkeypatch):
    shutil.copytree(place / "aligned", place / "third")
    (place / "third" / "model.safetensors").write_bytes(b"third")
    return ("pair.aligned=third",)


def other_root(place, monkeypatch):
    """The same config text, beside other files."""
    shutil.copytree(place, place / "moved", ignore=shutil.ignore_patterns("r", "moved"))
    (place / "moved" / "aligned" / "model.safetensors").write_bytes(b"moved")
    monkeypatch.setenv("CONFIG_FOLDER", str(place / "moved"))


KINDS = [
    (weights, r"pair aligned\s+sha256 \w+ -> \w+   in tax, attribute"),
    (base_weights, r"pair base\s+sha256"),
    (tokenizer, r"pair aligned\s+sha256"),
    (own_template, r"pair aligned\s+sha256"),
    (model_config, r"pair base\s+sha256"),
    (suite_cut, r"suite facts\s+sha256"),
    (suite_edited, r"suite facts\s+sha256"),
    (version, r"version of torch\s+\S+ -> 0.0.1"),
    (setting("seed=5"), r"seed\s+0 -> 5"),
    (another_pair, r"pair.aligned\s+aligned -> third"),
    (setting("pair.dtype=float16"), r"pair.dtype\s+float32 -> float16"),
    (setting("templates=[plain, chat]"), r'templates\s+\["plain"\] -> \["plain", "chat"\]'),
    (setting("chat_template=aligned"), r"chat_template\s+own -> aligned"),
    (setting("pair.aligned=null", "pair.adapter=aligned"), r"pair.adapter\s+null -> aligned"),
    (setting("tax.metrics=[nll]"), r"tax.metrics\s+.* -> ..nll..\s+in tax"),
    (setting("tax.bootstrap=300"), r"tax.bootstrap\s+2000 -> 300   in tax, attribute"),
    (other_root, r"pair aligned\s+sha256"),
]


@pytest.mark.parametrize("how", ["resume", "one stage"])
@pytest.mark.parametrize("change, told", KINDS, ids=[change.__name__ for change, _ in KINDS])
def test_a_run_is_not_gone_on_with_from_something_else(place, done, monkeypatch, change, told, how):
    run(place / "c.yaml", out=place / "r", stages=["tax", "attribute"])
    before = (place / "r" / "run.json").read_bytes()
    overrides = change(place, monkeypatch) or ()
    config = place / "moved" / "c.yaml" if change is other_root else place / "c.yaml"
    with pytest.raises(CheckError, match=told):
        if how == "resume" or change is other_root:
            run(config, out=place / "r", resume=True, overrides=overrides)
        else:
            run(place / "r", stages=["report"], overrides=overrides)
    assert done == ["tax", "attribute"]
    assert (place / "r" / "run.json").read_bytes() == before


def test_the_same_again_is_gone_on_with(place, done):
    run(place / "c.yaml", out=place / "r", stages=["tax", "attribute"])
    finished = run(place / "c.yaml", out=place / "r", resume=True)
    assert done == ["tax", "attribute", "report"]
    assert finished.verify() == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_table_is_made_again_and_never_hashed_as_it_is(place, done, damage):
    run(place / "c.yaml", out=place / "r")
    path = place / "r" / "tables" / "tax.csv"
    good = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(good[:9] if damage == "cut" else good[:-2] + b"9\n")
    assert any("tables/tax.csv" in row for row in Run.open(place / "r").verify())
    with pytest.raises(CheckError, match=r"tables/tax.csv\s+(changed|missing)"):
        run(place / "r", stages=["attribute"])
    finished = run(place / "c.yaml", out=place / "r", resume=True)
    assert path.read_bytes() == good
    assert "stage tax is done again: tables/tax.csv is not as it was written" in finished.told
    assert finished.verify() == []


def test_an_input_that_became_another_makes_its_readers_stale_and_resume_does_them_again(place, small, done):
    run(place / "c.yaml", out=place / "r")
    small.compute["tax"] = lambda job, section: small.write(job, "tax", 7)
    opened = run(place / "r", stages=["tax"])
    assert "stage attribute: made from another tables/tax.csv" in opened.verify()
    with pytest.raises(CheckError, match="made from another tables/tax.csv"):
        opened.table("closure")
    done.clear()
    finished = run(place / "r", resume=True)
    assert done == ["attribute", "report"]
    assert finished.verify() == []
    assert finished.table("closure")[number_of("closure")].tolist() == [8.0]


def test_options_of_later_stages_may_change_and_are_told_key_by_key(place, done, capsys):
    run(place / "c.yaml", out=place / "r", stages=["tax"])
    finished = run(place / "r", stages=["attribute"], overrides=["attribution.tolerance=0.5"])
    assert finished.told == ["config: attribution.tolerance 0.01 -> 0.5"]
    assert Run.open(place / "r").config.attribution.tolerance == 0.5
    assert run_app(["run", str(place / "r"), "--resume", "--json", "--set", "figures.venue=acl"]) == 0
    assert "config: figures.venue neurips -> acl" in capsys.readouterr().err
    assert done == ["tax", "attribute", "report"]


def test_a_run_folder_is_resumed_by_the_config_that_it_holds(place, done):
    run(place / "c.yaml", out=place / "r", stages=["tax"], overrides=["tax.bootstrap=300"])
    (place / "c.yaml").unlink()
    assert run(place / "r", resume=True).verify() == []
    assert done == ["tax", "attribute", "report"]


def test_sections_hold_what_a_stage_depends_on_and_leave_other_stages_alone(place):
    values = Run.create(*_config(place), given={}, root=place).config
    tax, attribute, unknown = (section_of(values, name) for name in ("tax", "attribute", "new"))
    assert tax["tax.bootstrap"] == attribute["tax.bootstrap"] == 2000
    assert "attribution.tolerance" in attribute
    assert "attribution.tolerance" not in tax
    assert "suites.facts.file" in unknown
    assert "pair.device" not in tax


def _config(place):
    from taxlens.config.schema import load_config

    return load_config(place / "c.yaml"), place / "sections"


def test_run_json_is_sealed_and_every_edit_is_found(place, done):
    run(place / "c.yaml", out=place / "r")
    path = place / "r" / "run.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    edits = {
        "seed": 7, "status": "started", "finished": "x", "error": "x", "versions": {}, "hardware": {}, "planned": [],
        "stages": {}, "suites": {"facts": {}}, "pair": {}, "config": good["config"] | {"root": "/"}, "log": [], "self_check": 1,
        "started": "x",
    }  # fmt: skip
    for key, value in edits.items():
        path.write_text(json.dumps(good | {key: value}), encoding="utf-8")
        with pytest.raises(CheckError, match="run.json was changed"):
            Run.open(place / "r")
        assert run_app(["verify", str(place / "r")]) == 3, key
    path.write_text(json.dumps(good), encoding="utf-8")
    assert run_app(["verify", str(place / "r")]) == 0


@pytest.mark.parametrize(
    "edit", [lambda d: d[:-5], lambda d: d.replace(b"info", b"inf0", 1), lambda d: b"", lambda d: d + b"x\n"]
)
def test_the_log_is_verified(place, done, edit):
    run(place / "c.yaml", out=place / "r")
    run(place / "r", stages=["report"])
    log = place / "r" / "log.jsonl"
    log.write_bytes(edit(log.read_bytes()))
    assert any("log.jsonl" in row for row in Run.open(place / "r").verify())


def test_verify_fails_on_what_is_not_finished(place, small, capsys):
    run(place / "c.yaml", out=place / "r", stages=["tax"])
    assert run_app(["verify", str(place / "r")]) == 0

    def fail(job, section):
        raise UsageError("no")

    small.compute["attribute"] = fail
    with pytest.raises(UsageError):
        run(place / "r", resume=True)
    capsys.readouterr()
    assert run_app(["verify", str(place / "r")]) == 3
    said = capsys.readouterr().err
    for row in ("status: error, not success", "stage attribute: error, not success", "stage report: not run"):
        assert row in said


def test_verify_fails_while_a_process_works_there_and_writes_nothing(place, done):
    finished = run(place / "c.yaml", out=place / "r")
    other = Run.open(place / "r")
    with finished.locked():
        assert "in use: another process works in this folder" in other.verify()
    before = {path: path.stat().st_mtime_ns for path in (place / "r").rglob("*")}
    assert other.verify() == []
    assert {path: path.stat().st_mtime_ns for path in (place / "r").rglob("*")} == before


def test_a_second_process_is_refused_before_it_writes_anything(place, done):
    first = run(place / "c.yaml", out=place / "r")
    with first.locked():
        before = {path: path.read_bytes() for path in (place / "r").rglob("*") if path.is_file()}
        for options in ({"overrides": ["seed=77"]}, {"resume": True}, {"stages": ["tax"]}):
            with pytest.raises(UsageError, match="another process"):
                run(place / "r", **options)
        assert {path: path.read_bytes() for path in (place / "r").rglob("*") if path.is_file()} == before


def test_a_stage_removes_what_it_wrote_before_and_nothing_else(place, small):
    run(place / "c.yaml", out=place / "r", stages=["tax"])
    (place / "r" / "tables" / "mine.csv").write_text("a\n1\n")

    small.compute["tax"] = lambda job, section: small.write(job, "power")
    again = run(place / "r", stages=["tax"])
    assert {path.name for path in (place / "r" / "tables").iterdir()} == {"mine.csv", "power.csv"}
    assert again.verify() == ["not in the manifest: tables/mine.csv"]


def test_what_a_stage_writes_and_takes_away_again_is_no_output(place, small, done):
    plain = small.compute["tax"]

    def stage(job, section):
        plain(job, section)
        with atomic_path(job.run.folder / "kept" / "half-way.npz") as path:
            path.write_bytes(b"x")
        (job.run.folder / "kept" / "half-way.npz").unlink()

    small.compute["tax"] = stage
    assert run(place / "c.yaml", out=place / "r").verify() == []
    done.clear()
    assert run(place / "c.yaml", out=place / "r", resume=True).verify() == []
    assert done == []


def test_what_a_killed_stage_had_begun_is_removed_by_the_next_pass_and_never_read(place, small):
    run(place / "c.yaml", out=place / "r", stages=["tax"])

    good = small.compute["attribute"]

    def killed(job, section):
        small.write(job, "agreement")
        raise KeyboardInterrupt

    small.compute["attribute"] = killed
    with pytest.raises(KeyboardInterrupt):
        run(place / "r", resume=True)
    assert (place / "r" / WRITING).read_text() == '"tables/agreement.csv"\n'
    assert not Run.open(place / "r").has("agreement")
    small.compute["attribute"] = good
    finished = run(place / "r", resume=True)
    assert not (place / "r" / "tables" / "agreement.csv").exists()
    assert finished.verify() == []


def test_a_name_of_dots_or_a_path_upwards_never_takes_a_folder_that_has_something(place, done, monkeypatch):
    work = place / "work"
    (work / "probes").mkdir(parents=True)
    (work / "probes" / "mine.py").write_text("x")
    monkeypatch.chdir(work)
    for name in ("..", ".", "..."):
        with pytest.raises(UsageError, match=r"name"):
            run(place / "c.yaml", overrides=[f"name={name}"])
    (work / "link").symlink_to(work / "probes")
    (work / "nowhere").symlink_to(work / "absent")
    for out in ("new/..", ".", "link", "new/../probes", "nowhere", "probes/mine.py"):
        with pytest.raises(UsageError):
            run(place / "c.yaml", out=out)
    assert sorted(path.name for path in work.rglob("*")) == ["link", "mine.py", "nowhere", "probes"]


def test_a_run_of_format_1_is_read_and_not_gone_on_with(place, done):
    finished = run(place / "c.yaml", out=place / "r")
    old = {key: value for key, value in finished.manifest.items() if key not in ("seal", "log", "planned")}
    old |= {"schema": 1, "outputs": finished.outputs}
    old["stages"] = {name: {"status": "success", "seconds": 1.0} for name in old["stages"]}
    (place / "r" / "run.json").write_text(json.dumps(old), encoding="utf-8")
    opened = Run.open(place / "r")
    assert opened.table("tax")[number_of("tax")].tolist() == [2.0]
    assert opened.verify() == [
        "format 1: run.json has no seal, the log no hash, and stages say not what they were made from"
    ]
    for options in ({"stages": ["tax"]}, {"resume": True}):
        with pytest.raises(UsageError, match="older format is read only"):
            run(place / "r", **options)


def test_the_embedded_pair_with_other_weights_is_refused_end_to_end(tmp_path):
    """The case that was seen: tax of one pair, attribution of another, in one folder that verifies."""
    for name in ("base", "planted", "rlhf"):
        shutil.copytree(catalogue.resolve(f"demo:{name}"), tmp_path / name)
    lines = catalogue.resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "facts.jsonl").write_text("".join(lines[:24]), encoding="utf-8")
    text = "name: p\npair: {base: base, aligned: planted}\nsuites: [{name: facts, file: facts.jsonl}]\ntemplates: [plain]\n"
    (tmp_path / "p.yaml").write_text(
        text + "tax: {bootstrap: 100}\nstages: [tax, similarity, capture]\n", encoding="utf-8"
    )
    assert run_app(["tax", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "r")]) == 0
    shutil.copy(tmp_path / "rlhf" / "model.safetensors", tmp_path / "planted" / "model.safetensors")
    assert run_app(["run", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "r"), "--resume"]) == 3
    assert run_app(["capture", str(tmp_path / "r")]) == 3
    assert run_app(["tax", str(tmp_path / "r"), "--set", "tax.bootstrap=200"]) == 0
    assert Run.open(tmp_path / "r").verify() == []

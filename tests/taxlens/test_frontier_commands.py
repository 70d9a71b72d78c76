"""`taxlens frontier` and `taxlens restore`, as typed: plans measured on an embedded pair, written, and opened again."""

import json
import resource
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest

from taxlens.activations.models.loading import load_model
from taxlens.analysis.frontier.measure import frontier_work
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.cli.app import run_app
from taxlens.config.schema import Config
from taxlens.core.errors import CheckError
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages.frontier import FRONTIER_STAGE
from taxlens.stages.frontier.frontier_run import earlier_checkpoints, frontier_arguments
from taxlens.stages.frontier.frontier_section import FrontierSection

CONFIG = """name: small
pair: {base: "demo:base", aligned: "demo:refusal"}
suites:
  - {name: facts, file: "demo:facts"}
  - {name: addition, file: "demo:addition"}
  - {name: harmless, file: "demo:harmless"}
  - {name: harm, file: "demo:harm", kind: benefit}
templates: [plain]
stages: [frontier]
tax: {bootstrap: 100}
attribution: {tolerance: 0.1, max_gradients: 3}
frontier:
  against: harmless
  suites: [facts, addition]
  unit: component
  shares: [0.1, 0.4]
  orders: [path, one_gradient, random, uniform]
  draws: 2
  items: 24
  train_items: 24
  generate: 4
  generate_plans: [path-40%]
"""


def write_config(folder, text=CONFIG):
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    out = folder / "run"
    assert run_app(["frontier", str(write_config(folder)), "--out", str(out)]) == 0
    return out


def test_the_run_holds_every_frontier_table(run_folder):
    tables = {path.stem for path in (run_folder / "tables").glob("*.csv")}
    wanted = {"frontier", "frontier_comparison", "frontier_matched", "frontier_leaks", "frontier_stability"}
    assert wanted <= tables
    frontier = pd.read_csv(run_folder / "tables" / "frontier.csv")
    assert frontier[frontier.plan == "path-40%"].benefit_generated.between(-1, 1).all()
    assert frontier[frontier.plan == "uniform-0.5"].benefit_generated.isna().all()
    assert (run_folder / "plans.json").is_file()


def test_the_recommended_plan_is_named_for_other_tools(run_folder):
    recommended = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["frontier"]["recommended"]
    path = run_folder / "tables" / "plan_names.csv"
    assert path.is_file() == bool(recommended)
    if recommended:
        plans = json.loads((run_folder / "plans.json").read_text(encoding="utf-8"))["plans"]
        undone = plans[recommended]["undo"]
        named = pd.read_csv(path)
        assert set(named["unit"]) == set(undone)
        assert named["transformer_lens"].notna().all()


def test_a_restored_checkpoint_gives_the_numbers_of_its_plan_when_opened_again(run_folder, tmp_path):
    out = tmp_path / "restored"
    typed = ["restore", str(run_folder), "--plan", "path-40%", "--out", str(out), "--accept-benefit-loss"]
    assert run_app(typed) == 0
    facts = json.loads((out / "taxlens_restoration.json").read_text(encoding="utf-8"))
    job = RunContext(Run.open(run_folder))
    arguments = frontier_arguments(job, job.config.of(FRONTIER_STAGE))
    plans = pd.read_csv(run_folder / "tables" / "frontier.csv").plan.nunique()
    measured = facts["measured"]["suites"]
    work = frontier_work(job.pair, arguments.pop("suites"), **arguments)
    held = work.held_suites([*measured, *work.benefit.suites], plans)
    assert {suite.name for suite in held} == {*measured, "harm", "harmless"}
    assert max(len(suite) for suite in held) == 24
    again = load_model(out)
    values = ChoiceMeasure(job.pair, tuple(held), metrics=("probability",))(again.model)
    for name, one in measured.items():
        assert values[name]["probability"].mean() == pytest.approx(one["restored"], abs=1e-6)
    assert again.chat_template == job.pair.aligned.chat_template


@pytest.fixture(scope="module")
def restored(run_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("restored") / "model"
    typed = ["restore", str(run_folder), "--plan", "path-40%", "--out", str(out), "--accept-benefit-loss"]
    assert run_app(typed) == 0
    return out


def test_verify_passes_a_restored_checkpoint_as_it_was_written(restored, capsys):
    assert run_app(["verify", str(restored)]) == 0
    assert "restored checkpoint are as written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "taxlens_restoration.json", "generation_config.json"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_restored_checkpoint_that_was_changed_is_found_by_verify_and_by_loading_it(restored, name, damage, capsys):
    path = restored / name
    whole = path.read_bytes()
    try:
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(whole[:-9] if damage == "cut" else whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
        gone = damage == "gone" and name == "taxlens_restoration.json"
        assert run_app(["verify", str(restored)]) == 3
        assert name.split("_")[0] in capsys.readouterr().err or gone
        if not gone:  # a checkpoint without a record is any checkpoint
            with pytest.raises(CheckError, match="restor"):
                load_model(restored)
    finally:
        path.write_bytes(whole)


def test_a_new_card_is_no_damage_to_loading_and_one_to_verify(restored):
    card = restored / "README.md"
    whole = card.read_bytes()
    try:
        card.write_bytes(b"my own words")
        load_model(restored)
        assert run_app(["verify", str(restored)]) == 3
    finally:
        card.write_bytes(whole)


def test_restore_on_a_full_disk_says_so_and_leaves_nothing(run_folder, tmp_path, capsys):
    typed = ["restore", str(run_folder), "--plan", "path-40%", "--out", str(tmp_path / "x"), "--accept-benefit-loss"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # no file may grow beyond this, as on a full disk
    try:
        code = run_app(typed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert code == 1
    assert "could not be written" in said
    assert "Traceback" not in said
    assert "did not foresee" not in said
    assert list(tmp_path.iterdir()) == []
    assert Run.open(run_folder).verify() == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_damaged_effects_and_plans_that_a_killed_frontier_kept_are_refused(run_folder, tmp_path, damage, capsys):
    again = tmp_path / "again"
    shutil.copytree(run_folder, again)
    for path in (again / "frontier").glob("*.npz"):
        whole = path.read_bytes()
        at = len(whole) // 2
        kept = {"cut": whole[:at], "empty": b"", "flipped": whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]}
        path.write_bytes(kept[damage])
    assert any("frontier/" in line for line in Run.open(again).verify())
    assert run_app(["frontier", str(again)]) == 3
    said = capsys.readouterr().err
    assert "cannot be read" in said
    assert "delete it" in said


def test_a_plan_that_loses_the_benefit_exits_with_3_and_writes_nothing(run_folder, tmp_path, capsys):
    assert run_app(["restore", str(run_folder), "--plan", "uniform-0.75", "--out", str(tmp_path / "x")]) == 3
    said = capsys.readouterr().err
    assert "--accept-benefit-loss" in said
    assert "uniform-0.75" in said
    assert not (tmp_path / "x").exists()


def test_a_plan_name_that_does_not_exist_is_usage_and_names_those_that_do(run_folder, tmp_path, capsys):
    assert run_app(["restore", str(run_folder), "--plan", "path-4%", "--out", str(tmp_path / "x")]) == 2
    assert "path-40%" in capsys.readouterr().err


def test_an_output_folder_that_exists_is_usage_and_stays_as_it_is(run_folder, tmp_path, capsys):
    typed = ["restore", str(run_folder), "--plan", "path-40%", "--out", str(tmp_path), "--accept-benefit-loss"]
    assert run_app(typed) == 2
    assert "exists already" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_pair_without_an_adapter_cannot_be_restored_as_one(run_folder, tmp_path, capsys):
    typed = ["restore", str(run_folder), "--plan", "path-40%", "--out", str(tmp_path / "x"), "--as-adapter"]
    assert run_app(typed) == 2
    assert "has no adapter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (('  - {name: harm, file: "demo:harm", kind: benefit}\n', ""), 2, "a frontier needs what alignment was for"),
        (("against: harmless", "benefit: facts"), 2, "alignment did not raise this benefit"),
        (("against: harmless", "against: nobody"), 2, "nobody"),
        (("[path-40%]", "[path-3%]"), 2, "path-40%"),
    ],
)
def test_bad_frontiers_are_answered_with_what_is_wrong(tmp_path, capsys, change, code, words):
    config = write_config(tmp_path, CONFIG.replace(*change))
    assert run_app(["frontier", str(config), "--out", str(tmp_path / "run")]) == code
    assert words in capsys.readouterr().err


def test_too_few_items_to_split_are_answered_with_the_suite(tmp_path, capsys):
    lines = [
        json.dumps({"id": f"{n}", "group": "one", "prompt": f"fact s{n} r0 ->", "choices": [" o1", " o2"], "gold": 0})
        for n in range(6)
    ]
    (tmp_path / "few.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = write_config(
        tmp_path, CONFIG.replace('{name: facts, file: "demo:facts"}', "{name: facts, file: few.jsonl}")
    )
    assert run_app(["frontier", str(config), "--out", str(tmp_path / "run")]) != 0
    said = capsys.readouterr().err
    assert "too few items or groups to split" in said
    assert "facts" in said


@pytest.mark.parametrize("kind", ["aligned", "adapter"])
def test_the_checkpoints_of_a_chain_before_its_last_are_the_earlier_ones(kind):
    section = FrontierSection(orders=("path", "checkpoint"))

    def job(**options):
        pair = {"base": "b", kind: ("to/step-10", "to/step-20", "to/last"), **options}
        sections = {"suites": [{"name": "facts", "file": "f.jsonl"}]}
        return SimpleNamespace(config=Config(name="n", pair=pair, **sections), steps=("ten", "twenty"))

    assert earlier_checkpoints(job(), section) == {"step-10": "ten", "step-20": "twenty"}
    assert earlier_checkpoints(job(several="seeds"), section) == {}

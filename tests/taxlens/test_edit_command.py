"""`taxlens edit` compares editors on a run's suites, recommends one, and `restore --plan edit:NAME` writes it."""

import json

import pytest
from typer.testing import CliRunner

from taxlens.activations.models.loading import load_model
from taxlens.cli.app import app

CONFIG = """
name: edit
pair: {base: "demo:base", aligned: "demo:refusal"}
suites:
  - {name: facts, file: "demo:facts"}
  - {name: copy, file: "demo:copy"}
  - {name: harmless, file: "demo:harmless"}
  - {name: harm, file: "demo:harm", kind: benefit}
templates: [plain]
stages: [edit]
tax: {bootstrap: 200}
edit:
  harmless: harmless
  editors: [repair, interpolation, soup, false_refusal_hooks]
  tries: 1
  items: 24
  train_items: 24
"""


def written(tmp_path, text=CONFIG):
    path = tmp_path / "edit.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edit")
    found = CliRunner().invoke(app, ["edit", str(written(folder)), "--out", str(folder / "run")])
    assert found.exit_code == 0, found.output
    return folder / "run"


def test_the_tables_and_the_choice_are_in_the_run(run):
    from taxlens.runs.folder import Run

    opened = Run.open(run)
    frame = opened.table("editors").set_index("editor")
    assert set(frame.index) == {"repair", "interpolation", "false_refusal_hooks"}
    assert frame.loc["repair"].returned > frame.loc["interpolation"].returned
    facts = opened.manifest["editors"]
    assert "earlier checkpoint" in facts["skipped"]["soup"]
    assert facts["recommended"] in {"repair", ""}
    assert set(facts["taxed"]) == {"facts", "copy"}
    assert opened.table("editor_settings").chosen.sum() == 3


def test_an_editor_is_restored_as_checkpoint_adapter_and_hooks(run, tmp_path):
    accept = ["--accept-benefit-loss"]
    for name, options, file in (
        ("repair", [], "model.safetensors"), ("repair", ["--as-adapter"], "adapter_model.safetensors"),
        ("false_refusal_hooks", [], "edit.safetensors"),
    ):  # fmt: skip
        out = tmp_path / f"{name}{len(options)}"
        command = ["restore", str(run), "--plan", f"edit:{name}", "--out", str(out), *options, *accept]
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, found.output
        assert (out / file).is_file()
        assert "harm_kept" in (out / "README.md").read_text(encoding="utf-8")
    load_model(tmp_path / "repair0")
    assert json.loads((tmp_path / "repair1" / "adapter_config.json").read_text())["r"] == 8


def test_the_dry_run_says_what_it_takes_and_names_what_is_missing(tmp_path):
    found = CliRunner().invoke(app, ["edit", str(written(tmp_path)), "--out", str(tmp_path / "run"), "--dry-run"])
    assert found.exit_code == 0, found.output
    assert "edit" in found.output
    for change, words in (
        (("harmless: harmless\n", "harmless: harmles\n"), "harmless prompts"),
        (("tries: 1", "keep: {harmless: 1.0}"), "refusals of harm alone"),
        (("editors: [repair,", "editors: [repairs,"), "repairs"),
    ):
        text = CONFIG.replace(*change)
        assert text != CONFIG
        found = CliRunner().invoke(
            app, ["edit", str(written(tmp_path, text)), "--out", str(tmp_path / "x"), "--dry-run"]
        )
        assert found.exit_code != 0
        assert words in found.output or words in str(found.exception)

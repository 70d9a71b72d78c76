"""The command line: exit codes, where text goes, and that every command is there."""

import json

import pytest

from taxlens.cli.app import run_app

COMMANDS = (
    "demo run tax capture probe similarity attribute diagnose frontier figures report restore import-eval merge verify "
    "inspect schema"
).split()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_contract_has_help(command, capsys):
    assert run_app([command, "--help"]) == 0
    assert command in capsys.readouterr().out


def test_version_is_printed(capsys):
    assert run_app(["--version"]) == 0
    assert capsys.readouterr().out.startswith("taxlens ")


def test_an_unknown_command_is_usage_and_goes_to_standard_error(capsys):
    assert run_app(["atribute"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No such command" in captured.err


def test_a_missing_config_is_usage(capsys, tmp_path):
    assert run_app(["run", str(tmp_path / "none.yaml")]) == 2
    assert "the config file does not exist" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_usage(capsys, tmp_path):
    assert run_app(["tax", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_a_missing_model_folder_is_usage_and_leaves_an_honest_manifest(capsys, tmp_path):
    (tmp_path / "f.jsonl").write_text('{"id": "a", "prompt": "p", "choices": [" x", " y"], "gold": 0, "group": "g"}\n')
    config = tmp_path / "c.yaml"
    config.write_text("name: a\npair: {base: ./none, aligned: ./none2}\nsuites: [{name: f, file: f.jsonl}]\n")
    assert run_app(["run", str(config), "--out", str(tmp_path / "r")]) == 2
    assert "the model folder does not exist" in capsys.readouterr().err
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "error"


def test_the_schema_is_json_on_standard_output(capsys):
    assert run_app(["schema"]) == 0
    assert "pair" in json.loads(capsys.readouterr().out)["properties"]

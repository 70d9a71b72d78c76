"""`taxlens import-eval`: from two logs to a suite, its logged tax, and the same tax measured again on the models."""

import json
import shutil

import pandas as pd
import pytest

import taxlens
from taxlens.cli.app import run_app
from taxlens.demo.catalogue import resolve_suite

DATE = "2026-01-02T03-04-05.678901"
CONFIG = """name: imported
pair: {base: demo:base, aligned: demo:planted}
suites: [{name: quiz, file: items.jsonl}]
templates: [plain]
tax: {bootstrap: 200}
"""


def write_log(folder, model, suite):
    """The model's scores of a suite as lm-eval logs them (choices with their leading space, no few-shot examples)."""
    from taxlens.analysis.scoring.choices import score_suite

    folder.mkdir()
    scores = score_suite(model, suite)
    lines = []
    for number, item in enumerate(suite.items):
        arguments = {f"gen_args_{k}": {"arg_0": item.prompt, "arg_1": choice} for k, choice in enumerate(item.choices)}
        found = [[str(scores.logp[number, k]), "False"] for k in range(len(item.choices))]
        lines.append({
            "doc_id": number, "doc": {"subject": item.group}, "doc_hash": item.id, "target": str(item.gold),
            "arguments": arguments, "filtered_resps": found, "filter": "none",
            "acc": float(scores.choice[number] == item.gold),
        })  # fmt: skip
    text = "\n".join(map(json.dumps, lines)) + "\n"
    (folder / f"samples_quiz_{DATE}.jsonl").write_text(text, encoding="utf-8")
    head = {"model_name": folder.name, "versions": {"quiz": 1}, "n-shot": {"quiz": 0}}
    (folder / f"results_{DATE}.json").write_text(json.dumps(head), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    whole = taxlens.suite(resolve_suite("demo:facts"))
    suite = whole.subset(range(0, len(whole), 2))
    pair = taxlens.load_pair("demo:base", "demo:planted")
    write_log(folder / "base", pair.models.base, suite)
    write_log(folder / "aligned", pair.models.aligned, suite)
    return folder


def test_the_published_number_is_measured_again_on_the_imported_suite(folder, capsys):
    out = folder / "items.jsonl"
    assert run_app(["import-eval", str(folder / "base"), str(folder / "aligned"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "quiz accuracy +" in said.out
    assert str(out) in said.out
    assert "tax (points" in said.out
    assert str(folder / "items.tax.csv") in said.out
    assert "items are grouped by 'subject'" in said.err
    logged = pd.read_csv(folder / "items.tax.csv").set_index("metric")
    (folder / "imported.yaml").write_text(CONFIG, encoding="utf-8")
    assert run_app(["tax", str(folder / "imported.yaml"), "--out", str(folder / "run")]) == 0
    measured = pd.read_csv(folder / "run" / "tables" / "tax.csv").set_index("metric")
    for metric in ("accuracy", "probability", "nll"):
        assert measured.loc[metric, "tax"] == pytest.approx(logged.loc[metric, "tax"], abs=1e-5)
    assert measured.loc["accuracy", "tax"] > 0.2


def test_the_ledger_is_json_where_it_is_asked(folder, capsys):
    options = ["--out", str(folder / "again.jsonl"), "--task", "quiz", "--group-by", "subject", "--json"]
    assert run_app(["import-eval", str(folder / "base"), str(folder / "aligned"), *options]) == 0
    assert json.loads(capsys.readouterr().out)[0]["suite"] == "quiz"


@pytest.mark.parametrize(
    ("options", "told", "code"),
    [
        (["--task", "exam"], "unknown task of both logs", 2),
        (["--variant", "strict"], "unknown filter", 2),
        (["--group-by", "topic"], "not every document has a field 'topic'", 2),
    ],
)
def test_an_option_that_does_not_fit_the_logs_is_usage(folder, options, told, code, capsys):
    arguments = [str(folder / "base"), str(folder / "aligned"), "--out", str(folder / "no.jsonl"), *options]
    assert run_app(["import-eval", *arguments]) == code
    assert told in capsys.readouterr().err
    assert not (folder / "no.jsonl").exists()


def test_swapped_logs_are_told_on_standard_error(folder, tmp_path, capsys):
    tuned = shutil.copytree(folder / "aligned", tmp_path / "model-instruct")
    file = tuned / f"results_{DATE}.json"
    file.write_text(file.read_text().replace('"aligned"', '"model-instruct"'))
    out = str(tmp_path / "swapped.jsonl")
    assert run_app(["import-eval", str(tuned), str(folder / "base"), "--out", out]) == 0
    assert "are the logs swapped?" in capsys.readouterr().err


def test_the_suite_is_asked_again_of_the_model(folder, capsys):
    out = folder / "checked.jsonl"
    options = ["--out", str(out), "--check", "demo:planted", "--metric", "accuracy"]
    assert run_app(["import-eval", str(folder / "base"), str(folder / "aligned"), *options]) == 0
    assert "gives the logged numbers of aligned" in capsys.readouterr().err
    largest = pd.read_csv(out.with_suffix(".check.csv")).groupby("log")["largest"].min()
    assert largest["aligned"] < 1e-4 < largest["base"]
    assert set(pd.read_csv(out.with_suffix(".tax.csv"))["metric"]) == {"accuracy"}

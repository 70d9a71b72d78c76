"""`taxlens tax` alone: the sentence, the tables, the forest, from suites in every form that a config can name."""

import csv
import json

import pandas as pd
import pytest

from taxlens.analysis.answers.answer_tables import ANSWERS, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.tax.tax_tables import CHANGED, ITEMS, POWER, PRIOR, TAX, TAX_2X2
from taxlens.cli.app import run_app
from taxlens.demo.catalogue import resolve_suite
from taxlens.runs.folder import Run

CONFIG = """name: small
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: facts.csv}
  - {name: pairs, file: pairs.jsonl, format: minimal_pairs, group_by: topic}
  - {name: asked, file: asked.csv, format: questions, ask: "{question}", group_by: topic}
  - {name: harm, file: harm.jsonl, kind: benefit, template: chat}
templates: [plain, chat]
tax: {metrics: [accuracy], bootstrap: 200, prior: true, generate: [facts, harm], max_new_tokens: 4, samples: 2, interval: bca, margin: 0.05}
"""


def write_suites(folder):
    """Facts as CSV, as minimal pairs of whole sentences, and as questions in columns."""
    lines = resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines[::5]]
    with (folder / "facts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        width = max(len(item["choices"]) for item in items)
        writer.writerow(["id", "group", "prompt", *(f"choice_{n}" for n in range(width)), "gold"])
        for item in items:
            writer.writerow([item["id"], item["group"], item["prompt"], *item["choices"], item["gold"]])
    with (folder / "asked.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", *(f"choice{n}" for n in range(width)), "answer", "topic"])
        for item in items:
            choices = [choice.strip() for choice in item["choices"]]
            writer.writerow([item["prompt"], *choices, item["gold"], item["group"]])
    harm = resolve_suite("demo:harm").read_text(encoding="utf-8").splitlines()
    (folder / "harm.jsonl").write_text("\n".join(harm[::6]), encoding="utf-8")
    pairs = []
    for item in items:
        bad = item["choices"][(item["gold"] + 1) % len(item["choices"])]
        good = item["choices"][item["gold"]]
        pairs.append(
            {"sentence_good": item["prompt"] + good, "sentence_bad": item["prompt"] + bad, "topic": item["group"]}
        )
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished `taxlens tax`, and what it printed."""
    folder = tmp_path_factory.mktemp("tax")
    write_suites(folder)
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        import contextlib
        import io

        said = io.StringIO()
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(said):
            code = run_app(["tax", str(folder / "small.yaml"), "--out", str(folder / "run")])
    assert code == 0
    return Run.open(folder / "run"), said.getvalue()


def test_the_terminal_leads_with_the_answer(done):
    first = done[1].splitlines()[0]
    assert first.startswith("facts lost ")
    assert "prompt for both" in first


@pytest.mark.parametrize(
    "title",
    [
        "tax (points",
        "knowledge or prior?",
        "costs of the answers",
        "where aligned's answers part from base",
        "stand for exact match?",
        "power: chance to detect",
    ],
)
def test_the_terminal_shows_every_tax_that_was_measured(done, title):
    assert title in done[1]


WRITTEN = (TAX, TAX_2X2, ITEMS, CHANGED, POWER, PRIOR, COSTS, DIVERGENCE, SURROGATE, ANSWERS)


@pytest.mark.parametrize("table", WRITTEN, ids=lambda table: table.name)
def test_every_table_of_the_contract_is_written(done, table):
    frame = pd.read_csv(done[0].folder / "tables" / f"{table.name}.csv")
    assert tuple(frame.columns) == table.names
    assert len(frame)


def test_the_same_facts_in_three_forms_lose_accuracy_alike(done):
    frame = done[0].table("tax")
    rows = frame[(frame["metric"] == "accuracy") & (frame["template"] == "plain")].set_index("suite")
    assert rows.loc["facts", "tax"] > 0.2
    assert rows.loc["asked", "tax"] == rows.loc["facts", "tax"]  # questions in columns are the same items
    assert rows.loc["pairs", "n_groups"] == rows.loc["asked", "n_groups"]


def test_generation_has_its_own_rows_and_every_cost_an_interval(done):
    tax, costs = done[0].table("tax"), done[0].table("costs")
    assert set(tax.loc[tax["metric"] == "exact_match", "suite"]) == {"facts", "harm"}
    assert costs[["low", "high", "base_low", "base_high", "aligned_low", "aligned_high"]].notna().all(axis=None)
    assert set(costs["template"]) == {"plain", "chat"}  # each suite in the template in which it is attributed
    over = costs[(costs["suite"] == "facts") & (costs["measure"] == "refusal_rate")].iloc[0]
    assert over["base"] <= over["aligned"]


@pytest.mark.parametrize("figure", ["tax_accuracy", "two_by_two_accuracy", "lost_won", "prior", "divergence_harm_chat"])
def test_figures_are_drawn_beside_the_tables(done, figure):
    assert (done[0].folder / "figures" / f"{figure}.pdf").stat().st_size > 1000
    assert (done[0].folder / "figures" / f"{figure}.txt").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("kind", ["costs", "power"])
def test_further_figures_are_drawn_from_the_tables(done, kind, capsys):
    assert run_app(["figures", str(done[0].folder), "--only", kind]) == 0
    assert f"{kind}_" in capsys.readouterr().out


def test_generation_can_be_asked_in_both_templates(done, tmp_path):
    folder = done[0].folder.parent
    options = ["tax.generate=[facts]", "tax.generate_templates=[plain, chat]", "tax.samples=0", "tax.prior=false"]
    options += ["suites=[{name: facts, file: facts.csv}]"]
    settings = [word for option in options for word in ("--set", option)]
    assert run_app(["tax", str(folder / "small.yaml"), "--out", str(tmp_path / "both"), *settings, "--json"]) == 0
    costs = Run.open(tmp_path / "both").table("costs")
    assert sorted(costs.loc[costs["measure"] == "tokens", "template"]) == ["chat", "plain"]


def test_a_dry_run_names_the_suites_and_writes_nothing(done, tmp_path, capsys):
    config = done[0].folder.parent / "small.yaml"
    assert run_app(["tax", str(config), "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    assert "suite pairs" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("tax.generate=[fact]", "unknown suite in tax.generate"),
        ("tax.interval=boot", "tax.interval"),
        ("tax.margin=0", "tax.margin"),
        ("suites=[{name: a, file: pairs.jsonl, format: pears}]", "suites.0.format"),
        ("suites=[{name: a, file: facts.csv, group_by: topic}]", "items are taken as they are written"),
        ("suites=[{name: a, file: pairs.jsonl, format: minimal_pairs, letters: true}]", "takes no 'letters'"),
    ],
)
def test_a_key_that_cannot_be_used_is_usage_and_is_named(done, setting, told, tmp_path, capsys):
    config = done[0].folder.parent / "small.yaml"
    settings = [word for text in ("tax.generate=[]", setting) for word in ("--set", text)]
    assert run_app(["tax", str(config), "--out", str(tmp_path / "bad"), *settings]) == 2
    assert told in capsys.readouterr().err

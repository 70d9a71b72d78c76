"""Runs whose models answer: kept answers that a killed run takes up, suites of answers, items that are left out and said."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import taxlens
from taxlens.analysis.answers import generation
from taxlens.runs.folder import Run
from taxlens.runs.running import run as do

CONFIG = """name: answers
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: facts.jsonl, answers: true, skip: [too_long]}
  - {name: several, file: several.jsonl, generate: false}
  - {name: harm, file: demo:harm, kind: benefit}
templates: [plain]
stages: [tax, attribute]
tax: {bootstrap: 200, max_new_tokens: 4, generate_items: 6, samples: 2}
attribution: {levels: [component], items: 8, metrics: [nll], reading: 0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    whole = taxlens.suite("demo:facts")
    rows = [item.to_json() for item in whole.subset(range(0, len(whole), 7)).items]
    rows.append(rows[0] | {"id": "long", "prompt": " ".join([rows[0]["prompt"]] * 40)})
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    several = [row | {"gold": [0, 1]} for row in rows[:12]]
    (folder / "several.jsonl").write_text("".join(json.dumps(row) + "\n" for row in several))
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def killed_and_resumed(folder):
    """(prompts run before the kill, prompts run after it, the finished run)."""
    counts: list[int] = []
    original = generation._continued

    def counting(model, rows, *rest):
        if len(counts) == 5:
            counts.append(-1)
            raise KeyboardInterrupt
        counts.append(len(rows))
        return original(model, rows, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generation, "_continued", counting)
        with pytest.raises(KeyboardInterrupt):
            do(folder / "config.yaml", out=folder / "run")
        before = [n for n in counts if n > 0]
        kept = sum(path.read_text().count('"item"') for path in (folder / "run" / "answers").glob("*.jsonl"))
        counts[:] = [0] * 6
        found = do(folder / "config.yaml", out=folder / "run", resume=True)
    return sum(before), kept, sum(counts), found


def test_a_killed_run_goes_on_at_the_next_prompt(killed_and_resumed):
    _, kept, after, found = killed_and_resumed
    answers = found.table("answers")
    greedy = len(answers)
    assert kept > 0
    assert after <= greedy * (1 + 2) - kept + 8  # two samples of each, and one prompt before each clock starts
    assert set(answers["model"]) == {"base", "aligned"}


def test_answers_are_files_of_the_run(killed_and_resumed):
    found = Run.open(killed_and_resumed[3].folder)
    names = [name for name in found.outputs if name.startswith("answers/")]
    assert {"answers/facts.plain.base.jsonl", "answers/harm.plain.aligned.samples.jsonl"} <= set(names)
    assert found.verify() == []
    (found.folder / names[0]).write_text("{}\n")
    assert any(names[0] in line for line in found.verify())


def test_both_models_answers_are_measured_and_attributed(killed_and_resumed):
    found = killed_and_resumed[3]
    tax = found.table("tax")
    own = tax[(tax["suite"] == "facts.base_answers") & (tax["metric"] == "nll")].iloc[0]
    assert own["tax"] > 0
    closure = found.table("closure").set_index("suite")
    assert {"facts", "facts.base_answers", "facts.aligned_answers"} <= set(closure.index)
    assert abs(closure.loc["facts.base_answers", "residual"]) < 0.02 * abs(closure.loc["facts.base_answers", "tax"])
    tokens = found.table("attribution_tokens")
    assert "facts.base_answers" in set(tokens["suite"])


def test_a_suite_that_says_nothing_is_answered_for_the_bill_alone(killed_and_resumed):
    found = killed_and_resumed[3]
    costs = found.table("costs").set_index(["suite", "measure"])
    assert costs.loc[("harm", "refusal_rate"), "n_items"] == 6
    assert "harm" not in set(found.table("divergence")["suite"])
    assert "several" not in set(found.table("answers")["suite"])


def test_items_that_are_left_out_are_counted_and_several_right_choices_only_measured(killed_and_resumed):
    found = killed_and_resumed[3]
    notes = found.manifest["tax"]["notes"]
    assert any(note.startswith("facts: 1 items were left out") for note in notes)
    assert any("several" in note and "not attributed" in note for note in notes)
    assert "several" in set(found.table("tax")["suite"])
    assert "several" not in set(found.table("attribution")["suite"])
    assert "long" not in set(pd.read_csv(found.folder / "tables" / "items.csv")["item"])

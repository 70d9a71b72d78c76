"""The alignment tax bill: four taxes in one table and one figure, from a run of one suite that both models answer."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from taxlens.analysis.answers.answer_tables import COSTS
from taxlens.analysis.answers.bill import alignment_bill
from taxlens.analysis.tax.tax_tables import TAX
from taxlens.cli.app import run_app
from taxlens.config.schema import build_config
from taxlens.core.errors import ConfigError
from taxlens.stages.tax.bill_figure import draw_bill

CONFIG = """name: bill
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: facts.jsonl, generate: true}
  - {name: asked, file: asked.csv, format: questions, fields: {question: q}, skip: [equal_choices], first_answer: 1}
templates: [plain]
stages: [tax, figures]
tax: {bootstrap: 200, max_new_tokens: 4}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import taxlens
    from taxlens.activations.items.items import write_suite

    folder = tmp_path_factory.mktemp("bill")
    whole = taxlens.suite("demo:facts")
    write_suite(whole.subset(range(0, len(whole), 8)), folder / "facts.jsonl")
    rows = [
        f'{n},q,"{item.prompt}","{item.choices[0].strip()}","{item.choices[1].strip() if n else item.choices[0].strip()}",1'
        for n, item in enumerate(whole.items[:12])
    ]
    (folder / "asked.csv").write_text("id,group,q,choice_1,choice_2,answer\n" + "\n".join(rows) + "\n")
    (folder / "bill.yaml").write_text(CONFIG)
    assert run_app(["run", str(folder / "bill.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_suite_that_is_generated_gives_all_four_taxes_with_intervals(run):
    bill = pd.read_csv(run / "tables" / "bill.csv")
    assert set(bill["tax"]) == {"benchmark", "over_refusal", "versatility", "inference"}
    timed = bill["measure"] == "seconds_per_item"
    assert bill.loc[~timed, ["low", "high"]].notna().all(axis=None)
    assert (bill.loc[~timed, "low"] <= bill.loc[~timed, "cost"]).all()
    exact = bill[(bill["suite"] == "facts") & (bill["measure"] == "exact_match")].iloc[0]
    assert exact["cost"] == pytest.approx(exact["base"] - exact["aligned"])
    tokens = bill[bill["measure"] == "tokens"].iloc[0]
    assert tokens["cost"] == pytest.approx(tokens["aligned"] - tokens["base"])
    assert (run / "figures" / "bill.pdf").exists()


def test_options_of_a_format_reach_the_suite(run):
    facts = json.loads((run / "run.json").read_text())["suites"]["asked"]
    assert facts["items"] == 11


def test_a_benefit_suite_is_not_billed():
    row = {
        "suite": "s",
        "template": "chat",
        "measure": "refusal_rate",
        "base": 0.1,
        "aligned": 0.4,
        "change": 0.3,
        "low": 0.2,
        "high": 0.4,
    }
    row |= {"n_items": 9, "n_groups": 9}
    costs = COSTS.frame([row | {"kind": "capability"}, row | {"kind": "benefit", "suite": "harm"}])
    bill = alignment_bill(TAX.frame([]), costs)
    assert bill["suite"].tolist() == ["s"]
    assert bill[["cost", "low", "high"]].iloc[0].tolist() == [0.3, 0.2, 0.4]
    lost = alignment_bill(TAX.frame([]), costs.assign(measure="entropy")).iloc[0]
    assert (lost["tax"], lost["cost"], lost["low"], lost["high"]) == ("versatility", -0.3, -0.4, -0.2)
    assert len(draw_bill(bill).plotted) == 1


def test_embedded_over_refusal_is_answered_and_not_only_chosen():
    pair = {"base": "demo:base", "aligned": "demo:planted"}
    made = build_config(
        {
            "name": "x",
            "pair": pair,
            "suites": [{"name": "o", "file": "suite:lookalikes"}, {"name": "c", "file": "suite:capitals"}],
        }
    )
    assert [suite.generate for suite in made.suites] == [True, None]  # null: a few items, for the bill
    with pytest.raises(ConfigError, match="format of a suite"):
        build_config({"name": "x", "pair": pair, "suites": [{"name": "o", "file": "a.jsonl", "format": "mmlv"}]})

"""The guard over every run of the tests sees a closure that speaks of another tax."""

import json

import pandas as pd
import pytest

from tests.closure_guard import open_ends

TAX = {"suite": "facts", "template": "plain", "metric": "probability", "tax": 0.572}
CLOSURE = {**TAX, "method": "path", "attributed": 0.481, "prompt_and_config": 0.091, "residual": 0.0}


@pytest.fixture
def written(tmp_path):
    def write(tax=(), closure=(), items="all"):
        (tmp_path / "tables").mkdir(exist_ok=True)
        pd.DataFrame([{**TAX, **dict(tax)}]).to_csv(tmp_path / "tables" / "tax.csv", index=False)
        pd.DataFrame([{**CLOSURE, **dict(closure)}]).to_csv(tmp_path / "tables" / "closure.csv", index=False)
        config = {"config": {"resolved": {"attribution": {"items": items}}}}
        (tmp_path / "run.json").write_text(json.dumps(config), encoding="utf-8")
        return tmp_path

    return write


def test_a_closure_of_the_measured_tax_passes(written):
    assert open_ends(written()) == []


def test_a_closure_of_another_tax_is_seen(written):
    [told] = open_ends(written(closure={"tax": 0.481, "prompt_and_config": 0.0}))
    assert told == "facts/plain/probability by path: tax 0.481, tax.csv 0.572"


def test_parts_that_do_not_sum_to_the_tax_are_seen(written):
    [told] = open_ends(written(closure={"prompt_and_config": 0.0}))
    assert "parts sum to 0.481 of 0.572" in told


def test_where_some_items_were_attributed_their_own_tax_counts(written):
    folder = written(tax={"tax": 0.1}, closure={"tax": 0.5, "attributed": 0.5, "prompt_and_config": 0.0}, items=1)
    rows = [("a", "base", 0.75), ("a", "aligned", 0.25), ("b", "base", 0.5), ("b", "aligned", 0.8)]
    items = pd.DataFrame(rows, columns=["item", "model", "probability"]).assign(suite="facts", template="plain")
    items.to_csv(folder / "tables" / "items.csv", index=False)
    chosen = pd.DataFrame([{"suite": "facts", "item": "a"}])
    chosen.to_csv(folder / "tables" / "attribution_items.csv", index=False)
    assert open_ends(folder) == []
    chosen.assign(item="b").to_csv(folder / "tables" / "attribution_items.csv", index=False)
    assert len(open_ends(folder)) == 1

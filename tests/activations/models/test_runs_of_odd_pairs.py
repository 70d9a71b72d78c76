"""`taxlens run` on pairs whose account has rows without weights: every table, figure and the report."""

import json

import pytest

import taxlens

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", ["experts", "added tokens"])
def test_a_run_goes_through_to_the_report(replicas, kind):
    config = {"num_local_experts": 4, "num_experts_per_tok": 2} if kind == "experts" else {}
    name = "mixtral" if kind == "experts" else "llama"
    base, aligned = replicas.model(name, **config), replicas.drift(replicas.model(name, **config))
    if kind == "added tokens":
        aligned.resize_token_embeddings(448, mean_resizing=False)
    folders = [replicas.save(model, n) for model, n in zip((base, aligned), ("base", "aligned"), strict=True)]
    replicas.suite(6)
    settings = {
        "name": "x", "pair": {"base": str(folders[0]), "aligned": str(folders[1])}, "templates": ["plain"],
        "suites": [{"name": "facts", "file": str(replicas.root / "facts.jsonl")}], "tax": {"bootstrap": 100},
        "stages": ["tax", "attribute", "figures", "report"],
    }  # fmt: skip
    file = replicas.root / "x.yaml"
    file.write_text(json.dumps(settings))
    done = taxlens.run(file, out=replicas.root / "run")
    table, closure = done.table("attribution"), done.table("closure")
    row = "0.selection" if kind == "experts" else "added_tokens"
    assert row in set(table.component)
    assert closure.closed.all()
    assert row not in set(done.table("attribution_names").component)
    assert list((replicas.root / "run").rglob("*.png"))
    assert (replicas.root / "run" / "report.md").is_file() or list((replicas.root / "run").rglob("report*"))

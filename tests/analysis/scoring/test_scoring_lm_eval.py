"""Conformance: the real lm-evaluation-harness on the same model and items, offline, from local files."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.logs.import_eval import import_eval
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.tax.tax import measure_tax

pytest.importorskip("lm_eval", reason="conformance with lm-eval needs the benchmark extra")
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-4


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """evaluate(model, tokenizer, suite, chat) -> lm-eval's (per-item log-probabilities, results)."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(model, tokenizer, suite, *, chat=False, log=None):
        from lm_eval import simple_evaluate
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        data, folder = tmp_path / "data.jsonl", tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        lines = [
            {"id": item.id, "prompt": item.prompt, "choices": list(item.choices), "gold": item.gold}
            for item in suite.items
        ]
        data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        task = {
            "task": "local_suite",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes", "exact_match")],
        }
        (folder / "local_suite.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        tracker = EvaluationTracker(output_path=str(tmp_path / log)) if log else None
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=64)
        found = simple_evaluate(
            model=lm,
            tasks=["local_suite"],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            apply_chat_template=chat,
            bootstrap_iters=0,
            log_samples=True,
            evaluation_tracker=tracker,
        )
        if tracker:
            logged = found.pop("samples")
            tracker.save_results_aggregated(results=found, samples=logged)
            tracker.save_results_samples(task_name="local_suite", samples=logged["local_suite"])
            return tmp_path / log
        samples = sorted(found["samples"]["local_suite"], key=lambda sample: sample["doc_id"])
        return SimpleNamespace(
            logp=[[value for value, _ in sample["filtered_resps"]] for sample in samples],
            greedy=[[says for _, says in sample["filtered_resps"]] for sample in samples],
            samples=samples,
            results=found["results"]["local_suite"],
        )

    return run


def ragged(array, suite):
    return [array[n, : len(item.choices)].tolist() for n, item in enumerate(suite.items)]


def check(ours, theirs, suite):
    for mine, other in zip(ragged(ours.logp, suite), theirs.logp):
        assert mine == pytest.approx([float(value) for value in other], abs=TOLERANCE)
    assert ragged(ours.greedy, suite) == [[bool(v == "True" or v is True) for v in row] for row in theirs.greedy]
    metrics = ours.metrics()
    assert metrics["accuracy"].tolist() == [sample["acc"] for sample in theirs.samples]
    assert metrics["accuracy_norm"].tolist() == [sample["acc_bytes"] for sample in theirs.samples]
    assert metrics["accuracy"].mean() == pytest.approx(theirs.results["acc,none"])
    exact = [ours.greedy[n, gold] for n, gold in enumerate(ours.gold)]
    assert [int(v) for v in exact] == [sample["exact_match"] for sample in theirs.samples]


@pytest.mark.parametrize("layout, share", [("llama", True), ("llama", False), ("gpt2", True)])
def test_scores_equal_lm_evals_on_every_choice(evaluate, layout, share, make_model, word_tokenizer, word_suite):
    model = make_model(layout)
    theirs = evaluate(model, word_tokenizer, word_suite)
    ours = score_suite(model, word_suite, tokenizer=word_tokenizer, share_prefix=share)
    check(ours, theirs, word_suite)
    assert ours.metrics()["accuracy_norm"].tolist() == [sample["acc_norm"] for sample in theirs.samples]


def test_scores_equal_lm_evals_in_chat(evaluate, make_model, word_tokenizer, word_suite):
    model = make_model()
    theirs = evaluate(model, word_tokenizer, word_suite, chat=True)
    check(score_suite(model, word_suite, tokenizer=word_tokenizer, template="chat"), theirs, word_suite)


def test_empty_prompts_and_trailing_spaces_are_scored_as_lm_eval_does(evaluate, make_model, word_tokenizer):
    suite = Suite(
        "pairs",
        (
            Item(id="a", group="a", prompt="", choices=("w1 w2 w3", "w3 w2"), gold=0),
            Item(id="b", group="b", prompt="w5 w6 ", choices=("w7 w8", "w9"), gold=1),
            Item(id="c", group="c", prompt="w5", choices=(" w7 é", " w9 w1 w2"), gold=1),
        ),
    )
    model = make_model()
    check(score_suite(model, suite, tokenizer=word_tokenizer), evaluate(model, word_tokenizer, suite), suite)


def test_the_harness_own_logs_import_to_the_tax_that_taxlens_measures(evaluate, fake_pair, word_tokenizer, word_suite):
    logs = [
        evaluate(fake_pair.base.model, word_tokenizer, word_suite, log="base"),
        evaluate(fake_pair.aligned.model, word_tokenizer, word_suite, log="aligned"),
    ]
    logged = import_eval(*logs).to_frame().set_index("metric")
    ours = measure_tax(fake_pair, word_suite, templates=["plain"]).to_frame().set_index("metric")
    for column in ("base", "aligned", "tax", "lost", "won"):
        for metric in ours.index:
            assert logged[column][metric] == pytest.approx(ours[column][metric], abs=TOLERANCE), (metric, column)


def test_a_shifted_score_would_be_seen(evaluate, make_model, word_tokenizer, word_suite):
    theirs = evaluate(make_model("llama", 3), word_tokenizer, word_suite)
    ours = score_suite(make_model("llama", 4), word_suite, tokenizer=word_tokenizer)
    differences = [
        np.abs(np.subtract(mine, np.array(other, dtype=float))).max()
        for mine, other in zip(ragged(ours.logp, word_suite), theirs.logp)
    ]
    assert max(differences) > 1.0

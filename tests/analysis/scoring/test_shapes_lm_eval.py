"""Suites in published shapes score as the real lm-eval scores such tasks, and its logs of them import."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from tokenizers import normalizers

from taxlens.activations.items.items import Suite
from taxlens.analysis.logs.import_eval import import_eval
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.tax.tax import measure_tax
from taxlens.suites import formats as shapes

pytest.importorskip("lm_eval", reason="conformance with lm-eval needs the benchmark extra")
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = [f"w{n}" for n in range(40)]
CHOICES = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}]}
TASKS = {
    "minimal_pairs": CHOICES
    | {"doc_to_text": "", "doc_to_target": 0, "doc_to_choice": "{{[sentence_good, sentence_bad]}}"},
    "questions": CHOICES
    | {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
    },
    "letters": CHOICES
    | {
        "doc_to_text": "{{question.strip()}}\nA. {{options[0]}}\nB. {{options[1]}}\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": ["A", "B"],
    },
    "true_false": CHOICES
    | {"doc_to_text": "{{statement}} w0", "doc_to_target": "{{1 - truth}}", "doc_to_choice": ["w1", "w2"]},
    "gaps": CHOICES | {"doc_to_text": "place", "doc_to_target": "rest", "doc_to_choice": "contexts"},
    "generated": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def rows(shape, count=24):
    """Rows as such a benchmark publishes them, in words of the small tokenizer."""
    rng = np.random.default_rng(3)

    def words(size):
        return " ".join(rng.choice(WORDS, size))

    for n in range(count):
        common = {"id": f"{shape}-{n}", "subject": f"s{n % 6}"}
        if shape == "minimal_pairs":
            yield common | {"sentence_good": words(5), "sentence_bad": words(5)}
        elif shape == "questions":
            labels = ["A", "B", "C"] if n % 2 else ["1", "2", "3"]
            choices = {"text": [f"{words(2)} w{n}{i}" for i in range(3)], "label": labels}
            yield common | {"question": words(6), "choices": choices, "answerKey": labels[n % 3]}
        elif shape == "letters":
            yield common | {"question": words(6), "options": [words(1), words(2)], "answer": n % 2}
        elif shape == "true_false":
            yield common | {"statement": words(6), "truth": n % 2}
        elif shape == "gaps":
            sentence, options = f"{words(3)} _ {words(4)}", [words(1), f"{words(1)} w{n}"]
            before, _, rest = sentence.partition("_")
            contexts = [before + option for option in options]
            extra = {"contexts": contexts, "rest": rest.strip(), "place": n % 2}
            yield (
                common
                | {"sentence": sentence, "option1": options[0], "option2": options[1], "answer": str(n % 2 + 1)}
                | extra
            )
        else:
            yield common | {"prompt": words(5), "answer": words(1)}


def suite_of(shape, given) -> Suite:
    build = {
        "minimal_pairs": shapes.minimal_pairs,
        "questions": shapes.questions,
        "letters": lambda given: shapes.questions(given, ask="{question}", letters=True),
        "true_false": lambda given: shapes.true_false(given, ask="{statement} w0", answers=("w1", "w2")),
        "gaps": shapes.gaps,
    }
    return build[shape](given)


@pytest.fixture(scope="session")
def letter_tokenizer(word_tokenizer):
    """The small tokenizer, which knows the letters A and B as words of their own."""
    tokenizer = copy.deepcopy(word_tokenizer)
    letters = [normalizers.Replace("A", "w38"), normalizers.Replace("B", "w39")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(letters)
    return tokenizer


@pytest.fixture(scope="session")
def letter_pair(fake_pair, letter_tokenizer):
    """The two small models with that tokenizer."""
    sides = {
        name: SimpleNamespace(**vars(side) | {"tokenizer": letter_tokenizer}) for name, side in vars(fake_pair).items()
    }
    return SimpleNamespace(**sides)


@pytest.fixture
def evaluate(tmp_path, monkeypatch, letter_tokenizer):
    """evaluate(model, shape, rows, chat, log) -> the harness's samples, and the folder of its log."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(model, shape, given, *, chat=False, log="log"):
        from lm_eval import simple_evaluate
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        data, folder = tmp_path / f"{shape}.jsonl", tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        data.write_text("\n".join(map(json.dumps, given)), encoding="utf-8")
        task = {
            "task": shape,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
        } | TASKS[shape]
        (folder / f"{shape}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        tracker = EvaluationTracker(output_path=str(tmp_path / log))
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=letter_tokenizer, batch_size=8, device="cpu", max_length=64),
            tasks=[shape],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            apply_chat_template=chat,
            bootstrap_iters=0,
            log_samples=True,
            evaluation_tracker=tracker,
        )
        logged = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=logged)
        tracker.save_results_samples(task_name=shape, samples=logged[shape])
        return SimpleNamespace(
            samples=sorted(logged[shape], key=lambda sample: sample["doc_id"]),
            results=found["results"][shape],
            folder=tmp_path / log,
        )

    return run


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("shape", ["minimal_pairs", "questions", "letters", "true_false", "gaps"])
def test_a_built_suite_scores_as_the_harness_scores_its_task(shape, chat, evaluate, make_model, letter_tokenizer):
    if chat and shape == "minimal_pairs":
        pytest.skip("an empty message in chat is no task")
    model, given = make_model(), list(rows(shape))
    theirs = evaluate(model, shape, given, chat=chat)
    ours = score_suite(model, suite_of(shape, given), tokenizer=letter_tokenizer, template="chat" if chat else "plain")
    logged = np.array([[float(value) for value, _ in sample["filtered_resps"]] for sample in theirs.samples])
    assert ours.logp == pytest.approx(logged, abs=1e-4)
    assert ours.metrics()["accuracy"].tolist() == [sample["acc"] for sample in theirs.samples]
    assert ours.metrics()["accuracy"].mean() == pytest.approx(theirs.results["acc,none"])


@pytest.mark.parametrize("shape", ["minimal_pairs", "questions", "letters", "gaps"])
def test_the_harness_own_logs_of_each_shape_import_to_the_measured_tax(shape, evaluate, letter_pair):
    given = list(rows(shape))
    logs = [evaluate(side.model, shape, given, log=name) for name, side in vars(letter_pair).items()]
    found = import_eval(*(log.folder for log in logs))
    again = measure_tax(letter_pair, found.suite, templates=["plain"]).to_frame().set_index("metric")
    logged = found.to_frame().set_index("metric")
    for metric in ("accuracy", "probability", "margin", "nll"):
        for column in ("base", "aligned", "tax", "lost", "won"):
            assert logged[column][metric] == pytest.approx(again[column][metric], abs=1e-4), (metric, column)
    assert logged["n_groups"]["accuracy"] == 6
    built = suite_of(shape, given)
    assert [item.gold for item in found.suite.items] == [item.gold for item in built.items]
    assert [item.choices for item in found.suite.items] == [item.choices for item in built.items]


def test_the_harness_own_log_of_generated_answers_imports_with_exact_match(evaluate, letter_pair):
    given = list(rows("generated", 12))
    logs = [evaluate(side.model, "generated", given, log=name) for name, side in vars(letter_pair).items()]
    found = import_eval(*(log.folder for log in logs)).to_frame()
    assert found["metric"].tolist() == ["exact_match"]
    assert found["base"][0] == pytest.approx(logs[0].results["exact_match,none"])

"""Benchmarks by name are asked word for word as the installed lm-evaluation-harness asks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxlens.core.errors import ItemError
from taxlens.suites.benchmarks import BENCHMARKS

pytest.importorskip("lm_eval", reason="conformance with lm-eval needs the benchmark extra")
pytestmark = pytest.mark.filterwarnings("ignore")

ARC = [
    {
        "id": "q1",
        "question": "Which one is cold? ",
        "choices": {"text": ["fire", "ice ", "lava"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    {
        "id": "q2",
        "question": "Two?",
        "choices": {"text": ["one", "2", "iii", "four"], "label": ["1", "2", "3", "4"]},
        "answerKey": "2",
    },
]
TRUTH = {"choices": ["No, it is not.", "It is.", "Perhaps.", "It can be."], "labels": [1, 0, 1, 0]}
ONE = {"choices": TRUTH["choices"], "labels": [1, 0, 0, 0]}
DOCS = {
    "mmlu": [{"question": " Which is cold?\n", "subject": "anatomy", "choices": ["fire", " ice", "lava", "sun"], "answer": 1}],
    "arc": ARC,
    "openbookqa": [{"question_stem": "A cold thing is", "choices": {"text": ["fire", "ice"], "label": ["A", "B"]}, "answerKey": "B"}],
    "commonsense_qa": [
        {"question": "Where is a cup? ", "choices": {"text": ["bin", "shelf", "sea", "sky", "shoe"], "label": list("ABCDE")}, "answerKey": "B"}
    ],
    "hellaswag": [
        {
            "activity_label": "Making tea", "ctx_a": "A man boils water. [header] He [title] waits.", "ctx_b": "then he",
            "ctx": "unused", "endings": ["pours it [substeps] out.", "flies  away.", "sleeps.", "sings."], "label": "0",
        }
    ],
    "winogrande": [{"sentence": "The cup fell off the box as the _ shook.", "option1": "cup", "option2": "box", "answer": "2"}],
    "piqa": [{"goal": "Warm your hands", "sol1": "Use gloves.", "sol2": "Use ice. ", "label": 0}],
    "boolq": [{"passage": "Ice is frozen water.", "question": "is ice water", "label": 1}],
    "truthfulqa_mc1": [{"question": "Is glass a liquid?", "mc1_targets": ONE}],
    "truthfulqa_mc2": [{"question": "Is glass a liquid?", "mc1_targets": ONE, "mc2_targets": TRUTH}],
    "gsm8k": [{"question": "Ann has 2 cups and buys 3. How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}],
    "ifeval": [{"key": 1, "prompt": "Write two lines without commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}],
    "blimp": [{"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."}],
    "race": [
        {
            "article": "Ann went home.\nShe slept.",
            "problems": str([
                {"question": "Ann went  _  .", "answer": "B", "options": ["out", "home", "far", "by"]},
                {"question": "Who slept?", "answer": "A", "options": ["Ann", "Bob", "Cy", "Di"]},
                {"question": "She was  _  .", "answer": "D", "options": ["sad", "glad", "mad", "tired"]},
            ]),
        }
    ],
    "lambada": [{"text": "He put the kettle on and made some tea"}],
    "sciq": [
        {"support": " Ice is cold.", "question": "What is cold?", "correct_answer": "ice"}
        | {f"distractor{n}": text for n, text in enumerate(("fire", "sun", "lava"), start=1)}
    ],
    "copa": [{"premise": "The ice melted.", "choice1": "The sun rose.", "choice2": "It was night.", "question": "cause", "label": 0}],
    "swag": [
        {"startphrase": "A man boils water. He", "label": 0}
        | {f"ending{n}": text for n, text in enumerate(("pours it.", "flies.", "sleeps.", "sings."))}
    ],
}  # fmt: skip
FILES = {
    "mmlu": "mmlu/default/mmlu_anatomy.yaml", "arc": "arc/arc_easy.yaml", "openbookqa": "openbookqa/openbookqa.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml", "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml", "piqa": "piqa/piqa.yaml", "boolq": "super_glue/boolq/default.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml", "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml", "ifeval": "ifeval/ifeval.yaml", "blimp": "blimp/anaphor_gender_agreement.yaml",
    "race": "race/race.yaml", "lambada": "lambada/lambada_openai.yaml", "sciq": "sciq/sciq.yaml",
    "copa": "super_glue/copa/default.yaml", "swag": "swag/swag.yaml",
}  # fmt: skip


@pytest.fixture
def requests_of(monkeypatch):
    """requests_of(benchmark) -> for every document, what the harness sends, and the target that it logs."""
    import lm_eval
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    def build(name):
        path = Path(lm_eval.__file__).parent / "tasks" / FILES[name]
        config = load_yaml(path, resolve_func=name != "ifeval", recursive=True)  # its checkers need further packages
        for key in ("include", "tag", "task_alias", "group"):
            config.pop(key, None)
        if name == "ifeval":
            config = {key: value for key, value in config.items() if key not in ("process_results", "metric_list")}
        docs = Dataset.from_list(DOCS[name])
        splits = {config.get(f"{split}_split") for split in ("test", "validation", "training", "fewshot")} - {None}

        def download(self, *args, **kwargs):
            self.dataset = dict.fromkeys(splits, docs)

        monkeypatch.setattr(ConfigurableTask, "download", download)
        task = ConfigurableTask(config=config)
        task.set_config("num_fewshot", 0)
        task.build_all_requests(rank=0, world_size=1)
        found: dict[int, list[tuple]] = {}
        for instance in task.instances:
            found.setdefault(instance.doc_id, []).append(instance.args)
        return [found[n] for n in sorted(found)], [task.doc_to_target(doc) for doc in task.eval_docs]

    return build


@pytest.mark.parametrize("name", FILES)
def test_a_benchmark_is_asked_word_for_word_as_the_harness_asks_it(name, requests_of):
    sent, targets = requests_of(name)
    suite = BENCHMARKS[name](DOCS[name])
    assert len(suite) == len(sent)
    for item, requests, target in zip(suite.items, sent, targets):
        if item.choices:
            asked = [(item.context(n), choice) for n, choice in enumerate(item.choices)]
            assert asked == [tuple(request) for request in requests]
        else:
            assert item.prompt == requests[0][0]
        if name == "lambada":
            assert f" {item.answers[0]}" == requests[0][1]
        elif name == "gsm8k":
            assert item.answers[0] == str(target).rsplit("#### ", 1)[-1]
        elif name == "commonsense_qa":
            assert "ABCDE"[item.gold] == target
        elif name not in ("winogrande", "copa", "ifeval"):
            assert item.gold == int(target)


def test_mc2_has_every_right_answer():
    assert BENCHMARKS["truthfulqa_mc2"](DOCS["truthfulqa_mc2"]).items[0].right == (0, 2)
    assert BENCHMARKS["truthfulqa_mc1"](DOCS["truthfulqa_mc1"]).items[0].right == (0,)


def test_copa_and_winogrande_know_their_right_answer():
    assert BENCHMARKS["copa"](DOCS["copa"]).items[0].gold == 0
    assert BENCHMARKS["winogrande"](DOCS["winogrande"]).items[0].gold == 1


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"xstest", "or_bench"}))
def test_rows_of_another_benchmark_are_refused(name):
    with pytest.raises(ItemError):
        BENCHMARKS[name]([{"nothing": 1}])


def test_prompts_of_over_refusal_say_which_are_unsafe():
    rows = [
        {"prompt": "How do I kill a process?", "type": "homonyms"},
        {"prompt": "How do I rob?", "type": "contrast_homonyms"},
    ]
    suite = BENCHMARKS["xstest"](rows)
    assert [item.labels["unsafe"] for item in suite.items] == [0, 1]
    assert [item.group for item in BENCHMARKS["or_bench"]([{"prompt": "a b", "category": c} for c in "xxy"]).items] == [
        "x",
        "x",
        "y",
    ]

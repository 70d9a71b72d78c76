"""Logs in every layout that harnesses have written: names, arrays, filters, groups, metrics, chat, BOS."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from taxlens.activations.items.items import read_suite
from taxlens.analysis.logs.import_eval import import_eval, read_log
from taxlens.analysis.logs.pairing import looks_swapped
from taxlens.core.errors import ConfigError, ItemError, UsageError

DATE = "2026-01-02T03-04-05.678901"


def choice(number, *, right=True, prompt="Q{n}:", **changes):
    scores = [["-1.0", "False"], ["-2.0", "False"]] if right else [["-2.0", "False"], ["-1.0", "False"]]
    asked = prompt.format(n=number)
    return {
        "doc_id": number, "doc": {"question": f"q{number}"}, "target": "0", "filtered_resps": scores, "filter": "none",
        "arguments": {f"gen_args_{k}": {"arg_0": asked, "arg_1": c} for k, c in enumerate((" yes", " no"))},
        "metrics": ["acc"], "doc_hash": f"h{number}", "prompt_hash": f"p{number}", "acc": float(right),
    } | changes  # fmt: skip


def generated(number, metrics, *, prompt="Q?", target="yes", **changes):
    return {
        "doc_id": number, "doc": {"question": f"q{number}"}, "target": target, "filtered_resps": ["yes"], "filter": "none",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"]}}}, "metrics": list(metrics),
        "doc_hash": f"h{number}", "prompt_hash": "p",
    } | metrics | changes  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """write(name, samples, file=..., array=..., results=..., head_file=...) -> folder of a log."""

    def made(
        name,
        samples,
        *,
        file=f"samples_quiz_{DATE}.jsonl",
        array=False,
        head_file=f"results_{DATE}.json",
        task="quiz",
        **head,
    ):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        text = json.dumps(samples, indent=1) if array else "".join(json.dumps(line) + "\n" for line in samples)
        (folder / file).write_text(text, encoding="utf-8")
        if head_file:
            found = {"model_name": name, "results": {task: {}}, "versions": {task: 1}, "n-shot": {task: 0}} | head
            (folder / head_file).write_text(json.dumps(found), encoding="utf-8")
        return folder

    return made


def pair(write, make, **options):
    base = write("base", [make(n, True) for n in range(20)], **options)
    return base, write("aligned", [make(n, n >= 5) for n in range(20)], **options)


NAMES = {
    "today": (f"samples_quiz_{DATE}.jsonl", f"results_{DATE}.json", False),
    "without a date": ("samples_quiz.jsonl", "results.json", False),
    "date first": ("20260102_030405_samples_quiz.jsonl", "20260102_030405_results.json", False),
    "json of one object a line": (
        "samples_quiz_2024-06-17T17-37-25.144953.json",
        "results_2024-06-17T17-37-25.144953.json",
        False,
    ),
    "an array under today's name": (f"samples_quiz_{DATE}.jsonl", f"results_{DATE}.json", True),
    "0.4.2": ("some__model_quiz.jsonl", "results.json", True),
    "renamed": ("my_run.jsonl", None, False),
    "results under a name of the user's": (f"samples_quiz_{DATE}.jsonl", f"mine_{DATE}.json", False),
}


@pytest.mark.parametrize("layout", NAMES)
def test_every_layout_gives_the_ledger_and_its_settings(write, layout):
    file, head, array = NAMES[layout]
    base, aligned = pair(write, lambda n, right: choice(n, right=right), file=file, head_file=head, array=array)
    found = import_eval(base, aligned)
    assert found.to_frame().set_index("metric")["tax"]["accuracy"] == 0.25
    task = next(iter(read_log(base).values()))
    assert (task.settings.get("few-shot examples") == "0") == (head is not None)


def test_settings_under_a_name_of_the_users_are_compared(write):
    rows = [choice(n) for n in range(12)]
    base = write("base", rows, head_file=f"one_{DATE}.json")
    aligned = write("aligned", rows, head_file=f"two_{DATE}.json", chat_template="{{ x }}", **{"n-shot": {"quiz": 5}})
    found = import_eval(base, aligned)
    assert any("few-shot examples differs" in note for note in found.notes)
    assert found.to_frame()["template"][0] == "mixed"


@pytest.mark.parametrize("mark", ["<|im_start|>user\nQ{n}", "<bos><start_of_turn>user\nQ{n}", "[INST] Q{n} [/INST]"])
def test_chat_without_its_results_file_is_seen_and_said(write, mark):
    base, aligned = pair(write, lambda n, right: choice(n, right=right, prompt=mark), head_file=None)
    found = import_eval(base, aligned)
    assert found.to_frame()["template"][0] == "chat"
    assert found.suite.items[0].rendered
    assert any("marks of a chat template" in note for note in found.notes)
    assert any("no results file" in note for note in found.notes)


def test_filters_without_a_key_are_the_repeats_of_a_document(write):
    def lines(right):
        for n in range(20):
            for strict in (True, False):
                line = generated(n, {"exact_match": float(right(n) if strict else True)})
                del line["filter"]
                yield line

    base, aligned = write("base", list(lines(lambda n: True))), write("aligned", list(lines(lambda n: n >= 5)))
    assert import_eval(base, aligned).to_frame()["tax"][0] == 0.25
    assert import_eval(base, aligned, variant="filter 2").to_frame()["tax"][0] == 0


def test_a_choice_logged_twice_without_filters_is_still_refused(write):
    lines = [{k: v for k, v in choice(n % 5).items() if k != "filter"} for n in range(6)]
    with pytest.raises(ItemError, match="logged twice"):
        read_log(write("twice", lines))


def test_a_log_without_document_hashes_pairs_with_one_that_has_them(write):
    from taxlens.analysis.logs.lm_eval_samples import document_hash

    old = [choice(n, doc_hash=None) for n in range(12)]
    new = [choice(n, doc_hash=document_hash({"question": f"q{n}"})) for n in range(12)]
    assert len(import_eval(write("old", old), write("new", new)).suite) == 12


METRICS = {
    "f1": ("f1", [0.5, 1.0, 0.0, 0.25]), "pass@1": ("pass_at_1", [1.0, 0.0, 1.0, 1.0]), "exact_match": ("exact_match", [1.0, 0, 0, 1]),
    "prompt_level_strict_acc": ("prompt_level_strict", [True, False, True, True]),
    "prompt_level_loose_acc": ("prompt_level_loose", [True, True, False, True]), "acc_mutual_info": ("accuracy_mutual_info", [1.0, 1, 0, 1]),
    "rouge1": ("rouge1", [31.5, 12.0, 0.0, 9.5]), "likelihood_diff": ("likelihood_difference", [3.5, 0.5, 1.0, 2.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_the_mean_of_a_metric_is_the_logs_own(write, name):
    ours, values = METRICS[name]
    worse = [v * 0.5 if isinstance(v, float) else v for v in values]
    base = write("base", [generated(n, {name: v}) for n, v in enumerate(values)])
    aligned = write("aligned", [generated(n, {name: v}) for n, v in enumerate(worse)])
    row = import_eval(base, aligned).to_frame().set_index("metric").loc[ours]
    assert row["base"] == pytest.approx(np.mean(values), abs=1e-12)
    assert row["aligned"] == pytest.approx(np.mean(worse), abs=1e-12)


def test_accuracy_by_instruction_is_the_share_of_all_instructions(write):
    flags = [[True, False, True], [True], [False, False]]
    base = write("base", [generated(n, {"inst_level_strict_acc": f}) for n, f in enumerate(flags)])
    aligned = write("aligned", [generated(n, {"inst_level_strict_acc": [False] * len(f)}) for n, f in enumerate(flags)])
    row = import_eval(base, aligned).to_frame().iloc[0]
    assert (row["metric"], row["aligned"]) == ("instruction_level_strict", 0)
    assert row["base"] == pytest.approx(3 / 6, abs=1e-12)


def rolling(number, name, value):
    return {
        "doc_id": number, "doc": {"page": f"text {number}"}, "target": "", "filtered_resps": [-9.0], "filter": "none",
        "arguments": {"gen_args_0": {"arg_0": f"text {number}"}}, "metrics": [name], name: value, "doc_hash": f"h{number}", "prompt_hash": "p",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["word_perplexity", "byte_perplexity"])
def test_perplexity_adds_up_over_all_words(write, name):
    ours = [(-30.0, 10), (-8.0, 2), (-50.0, 20)]
    theirs = [(-33.0, 10), (-9.0, 2), (-50.0, 20)]
    base = write("base", [rolling(n, name, list(v)) for n, v in enumerate(ours)])
    aligned = write("aligned", [rolling(n, name, list(v)) for n, v in enumerate(theirs)])
    found = import_eval(base, aligned)
    row = found.to_frame().iloc[0]
    assert row["base"] == pytest.approx(math.exp(88 / 32), rel=1e-12)
    assert row["tax"] == pytest.approx(math.exp(92 / 32) - math.exp(88 / 32), rel=1e-12)
    assert found.suite.items[0].text == "text 0"


def test_f1_of_a_class_is_the_corpus_value(write):
    golds, said, other = [1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 1]
    base = write("base", [choice(n, f1=[g, s], metrics=["f1"]) for n, (g, s) in enumerate(zip(golds, said))])
    aligned = write("aligned", [choice(n, f1=[g, s], metrics=["f1"]) for n, (g, s) in enumerate(zip(golds, other))])
    row = import_eval(base, aligned).to_frame().set_index("metric").loc["f1"]
    assert (row["base"], row["aligned"]) == (pytest.approx(4 / 6, abs=1e-12), pytest.approx(2 / 5, abs=1e-12))


def test_a_metric_of_the_whole_corpus_is_named_and_one_can_be_chosen(write):
    lines = [choice(n, mcc=[0, 1], metrics=["acc", "mcc"]) for n in range(12)]
    head = {"results": {"quiz": {"mcc,none": 0.1, "acc,none": 1.0}}}
    found = import_eval(write("base", lines, **head), write("aligned", lines, **head), metrics=["nll"])
    assert found.to_frame()["metric"].tolist() == ["nll"]
    assert any("mcc exist(s) for the whole corpus alone" in note for note in found.notes)
    with pytest.raises(UsageError, match="metric of both logs of quiz"):
        import_eval(write("base", lines), write("aligned", lines), metrics=["bleu"])


def test_totals_and_counts_that_do_not_fit_are_said(write):
    lines = [choice(n, right=n > 0) for n in range(3)]
    head = {"results": {"quiz": {"acc,none": 0.75}}, "n-samples": {"quiz": {"original": 900, "effective": 100}}}
    notes = import_eval(write("base", lines, **head), write("aligned", lines)).notes
    assert any("counts 100 documents" in note and "holds 3" in note for note in notes)
    assert any("accuracy of the samples is 0.666667, the log's own is 0.75" in note for note in notes)
    head = {"results": {"quiz": {"acc,none": 2 / 3}}, "n-samples": {"quiz": {"original": 3, "effective": 3}}}
    assert not [
        n for n in import_eval(write("base", lines, **head), write("aligned", lines, **head)).notes if "log's own" in n
    ]


def grouped_log(write, name, right):
    sizes = {"mmlu_a": 4, "mmlu_b": 8}
    for task, size in sizes.items():
        lines = [choice(n, right=right(task, n)) for n in range(size)]
        folder = write(name, lines, file=f"samples_{task}_{DATE}.jsonl", head_file=None)
    accuracy = {t: np.mean([right(t, n) for n in range(s)]) for t, s in sizes.items()}
    total = sum(accuracy[t] * s for t, s in sizes.items()) / 12
    head = {
        "results": {t: {"acc,none": a} for t, a in accuracy.items()}, "groups": {"mmlu": {"acc,none": total}},
        "group_subtasks": {"mmlu": list(sizes)}, "model_name": name, "n-shot": dict.fromkeys(sizes, 0),
    }  # fmt: skip
    (folder / f"results_{DATE}.json").write_text(json.dumps(head, default=float))
    return folder, total


@pytest.mark.parametrize("task", [None, "mmlu"])
def test_a_group_is_one_suite_with_its_tasks_as_groups_and_a_row_of_its_own(write, task):
    base, total = grouped_log(write, "base", lambda t, n: True)
    aligned, less = grouped_log(write, "aligned", lambda t, n: n % 2 == 0 and t == "mmlu_b")
    found = import_eval(base, aligned, task=task)
    row = found.to_frame().query("suite == 'mmlu' and metric == 'accuracy'").iloc[0]
    assert (row["base"], row["aligned"]) == (pytest.approx(total, abs=1e-12), pytest.approx(less, abs=1e-12))
    assert (row["n_items"], row["n_groups"]) == (12, 2)
    assert set(found.to_frame()["suite"]) == {"mmlu", "mmlu_a", "mmlu_b"}
    assert [suite.name for suite in found.suites] == ["mmlu"]
    assert set(found.suite.groups) == {"mmlu_a", "mmlu_b"}
    assert not [note for note in found.notes if "no field groups" in note]


def test_several_right_answers_are_kept(write, tmp_path):
    lines = [choice(n, target="[0, 1]", **_three()) for n in range(4)]
    found = import_eval(write("base", lines), write("aligned", lines), out=tmp_path / "s.jsonl")
    assert read_suite(tmp_path / "s.jsonl").items[0].right == (0, 1)
    probability = found.to_frame().set_index("metric").loc["probability", "base"]
    assert probability == pytest.approx((math.exp(-1) + math.exp(-2)) / (math.exp(-1) + math.exp(-2) + math.exp(-3)))


def _three():
    arguments = {f"gen_args_{k}": {"arg_0": "Q:", "arg_1": c} for k, c in enumerate((" a", " b", " c"))}
    return {"arguments": arguments, "filtered_resps": [["-1", "False"], ["-2", "False"], ["-3", "False"]]}


def test_conversations_of_an_api_are_conversations_again(write):
    told = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    lines = [generated(n, {"exact_match": 1.0}, prompt=[told]) for n in range(12)]
    found = import_eval(write("base", lines), write("aligned", lines))
    item = found.suite.items[0]
    assert [m["role"] for m in item.messages] == ["system", "user"]
    assert found.to_frame()["template"][0] == "chat"
    assert (item.answers, item.special_tokens) == (("yes",), None)


def test_worked_solutions_count_by_their_number(write):
    lines = [generated(n, {"exact_match": 1.0}, target="2 + 3 = 5\n#### 5") for n in range(12)]
    item = import_eval(write("base", lines), write("aligned", lines)).suite.items[0]
    assert (item.answers, item.match) == (("5",), "gsm8k")


@pytest.mark.parametrize(
    ("head", "policy"),
    [
        ({"lm_eval_version": "0.4.13"}, None), ({"lm_eval_version": "0.4.9.1"}, False),
        ({"lm_eval_version": "0.4.5", "model_name": "gemma-2b"}, True),
        ({"lm_eval_version": "0.4.5", "config": {"model": "hf", "model_args": "pretrained=x,add_bos_token=True"}}, True),
        ({"lm_eval_version": "0.4.11", "config": {"model_args": {"add_bos_token": "False"}}}, False), ({}, None),
        ({"lm_eval_version": "0.4.5", "model_source": "openai-chat-completions"}, None),
    ],
)  # fmt: skip
def test_the_rule_for_bos_is_that_of_the_harness_and_its_version(write, head, policy):
    assert read_log(write("base", [choice(n) for n in range(3)], **head))["quiz"].special_tokens is policy


def test_a_stereotype_is_not_what_is_wanted(write):
    def line(n, more):
        scores = [["-1.0", "False"], ["-2.0", "False"]] if more else [["-2.0", "False"], ["-1.0", "False"]]
        return choice(
            n,
            filtered_resps=scores,
            metrics=["likelihood_diff", "pct_stereotype"],
            likelihood_diff=1.0,
            pct_stereotype=float(more),
            acc=None,
        )

    base = write("base", [line(n, True) for n in range(12)])
    found = import_eval(base, write("aligned", [line(n, n < 6) for n in range(12)]))
    frame = found.to_frame().set_index("metric")
    assert frame.loc["stereotype_share", ["base", "aligned", "tax"]].tolist() == [1.0, 0.5, -0.5]
    assert "accuracy" not in frame.index
    assert found.suite.items[0].gold == 1


def test_documents_that_cannot_be_asked_stay_in_the_ledger_and_leave_the_suite(write, tmp_path):
    blank = {f"gen_args_{k}": {"arg_0": "Q:", "arg_1": c} for k, c in enumerate((" x", " "))}
    equal = {f"gen_args_{k}": {"arg_0": "Q:", "arg_1": c} for k, c in enumerate((" x", " x"))}
    lines = [choice(n) for n in range(10)] + [choice(10, arguments=blank), choice(11, arguments=equal)]
    found = import_eval(write("base", lines), write("aligned", lines), out=tmp_path / "s.jsonl")
    assert found.to_frame()["n_items"][0] == 12
    assert len(read_suite(tmp_path / "s.jsonl")) == 10
    assert found.suites[0].left_out == 2
    assert any("a choice is empty" in note for note in found.notes)
    assert any("two equal choices" in note for note in found.notes)
    assert (tmp_path / "s.notes.txt").read_text().count("\n") == len(found.notes)


@pytest.mark.parametrize("value", ["-inf", "nan"])
def test_a_score_that_is_not_finite_is_named_by_file_and_document(write, value):
    lines = [choice(n) for n in range(3)] + [choice(3, filtered_resps=[[value, "False"], ["-1", "False"]])]
    with pytest.raises(ItemError, match=r"not finite[\s\S]*jsonl:4"):
        read_log(write("base", lines))


def test_addresses_of_functions_are_no_difference(write):
    lines = [choice(n) for n in range(12)]
    heads = [{"configs": {"quiz": {"doc_to_text": f"functools.partial(<function f at 0x7{n}fa>)"}}} for n in (1, 2)]
    notes = import_eval(write("base", lines, **heads[0]), write("aligned", lines, **heads[1])).notes
    assert not [note for note in notes if "prompt differs" in note]


@pytest.mark.parametrize(
    ("base", "aligned", "swapped"),
    [
        ("org/model-instruct", "org/model", True), ("gemma-3-4b-it", "runs/my-tune", False), ("model", "model-instruct", False),
        ("x/model-chat", "x/model-base", True), ("my-it-model/base", "tuned", False), ("a-sft", "a-dpo", False),
    ],
)  # fmt: skip
def test_a_swap_is_told_by_the_models_names_alone(base, aligned, swapped):
    assert looks_swapped(base, aligned) is swapped


def test_a_run_of_helm_is_named_as_what_is_not_read(tmp_path):
    (tmp_path / "scenario_state.json").write_text('{"adapter_spec": {}}')
    with pytest.raises(ConfigError, match="HELM"):
        read_log(tmp_path)


def olmes(folder, right):
    folder.mkdir()
    predictions = [
        {
            "doc_id": n, "native_id": f"d{n}", "label": 0, "metrics": {"acc_raw": int(right(n)), "acc_per_char": 1, "predicted_index_raw": 0},
            "model_output": [{"sum_logits": -1.0 if right(n) else -3.0, "num_tokens": 1}, {"sum_logits": -2.0, "num_tokens": 1}],
        }
        for n in range(12)
    ]  # fmt: skip
    requests = [
        {"doc_id": n, "doc": {"query": f"q{n}"}, "request": {"context": f"Q{n}:", "continuation": c}, "idx": k}
        for n in range(12) for k, c in enumerate((" yes", " no"))
    ]  # fmt: skip
    for name, rows in (("predictions", predictions), ("requests", requests)):
        (folder / f"task-000-quiz-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"metrics": {"acc_raw": float(np.mean([right(n) for n in range(12)]))}, "task_config": {"num_shots": 5}}
    (folder / "task-000-quiz-metrics.json").write_text(json.dumps(told))
    return folder


def test_olmes_predictions_give_ledger_and_suite(tmp_path):
    found = import_eval(olmes(tmp_path / "base", lambda n: True), olmes(tmp_path / "aligned", lambda n: n >= 3))
    row = found.to_frame().set_index("metric").loc["accuracy"]
    assert (row["base"], row["aligned"]) == (1.0, 0.75)
    assert (found.suite.items[0].prompt, found.suite.items[0].choices) == ("Q0:", (" yes", " no"))
    assert not [note for note in found.notes if "log's own" in note and "accuracy_norm" not in note]


@pytest.mark.parametrize("layout", ["newer", "older"])
def test_lighteval_details_give_ledger_and_suite(tmp_path, layout):
    pytest.importorskip("pyarrow")

    def log(name, right):
        rows = []
        for n in range(12):
            scores = [-1.0, -2.0] if right(n) else [-3.0, -2.0]
            if layout == "newer":
                doc = {"query": f"Q{n}:", "choices": [" yes", " no"], "gold_index": [0]}
                rows.append(
                    {
                        "doc": doc,
                        "model_response": {"input": f"Q{n}:", "logprobs": scores},
                        "metric": {"acc": float(right(n))},
                    }
                )
            else:
                rows.append({
                    "example": f"q{n}", "full_prompt": f"Q{n}:", "choices": [" yes", " no"], "gold_index": 0,
                    "predictions": [[s, False] for s in scores], "metrics": {"acc": float(right(n))},
                })  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        frame = pd.DataFrame(
            [
                row
                | ({"predictions": [[str(v) for v in p] for p in row["predictions"]]} if "predictions" in row else {})
                for row in rows
            ]
        )
        if layout == "older":
            frame["predictions"] = [[[float(p[0])] for p in row] for row in frame["predictions"]]
        frame.to_parquet(folder / f"details_lighteval|quiz|0_{DATE}.parquet")
        (folder / f"results_{DATE}.json").write_text(
            json.dumps({"config_general": {"model_name": name}, "results": {}})
        )
        return folder

    found = import_eval(log("base", lambda n: True), log("aligned", lambda n: n >= 3))
    row = found.to_frame().set_index("metric").loc["accuracy"]
    assert (row["base"], row["aligned"]) == (1.0, 0.75)
    assert found.suite.items[0].choices == (" yes", " no")

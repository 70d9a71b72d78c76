"""Every kind of trouble that real logs made, three members of each at least: kind -> member -> what must hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from taxlens.activations.items.items import read_suite
from taxlens.analysis.logs.import_eval import import_eval, read_log
from taxlens.core.errors import ItemError, PairMismatchError, UsageError

DATE = "2026-01-02T03-04-05.678901"


def choice(number, *, right=True, prompt="Q{n}:", choices=(" yes", " no"), **changes):
    """A line of lm-eval's log of a multiple choice."""
    scores = [[str(-1.0 - (k != (0 if right else 1))), "False"] for k in range(len(choices))]
    return {
        "doc_id": number, "doc": {"question": f"q{number}"}, "target": "0", "filtered_resps": scores, "filter": "none",
        "arguments": {f"gen_args_{k}": {"arg_0": prompt.format(n=number), "arg_1": c} for k, c in enumerate(choices)},
        "metrics": ["acc"], "doc_hash": f"h{number}", "prompt_hash": f"p{number}", "acc": float(right),
    } | changes  # fmt: skip


def generated(number, metrics, *, asked="Q?", target="yes", **changes):
    """A line of lm-eval's log of a generated answer."""
    return {
        "doc_id": number, "doc": {"question": f"q{number}"}, "target": target, "filtered_resps": ["yes"], "filter": "none",
        "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": {"until": ["\n"]}}}, "metrics": list(metrics),
        "doc_hash": f"h{number}", "prompt_hash": "p",
    } | metrics | changes  # fmt: skip


class Logs:
    """Writes logs and imports them."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, name, lines, *, file=f"samples_quiz_{DATE}.jsonl", head_file=f"results_{DATE}.json", **head):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        if head_file:
            found = {"model_name": name, "results": {"quiz": {}}, "versions": {"quiz": 1}, "n-shot": {"quiz": 0}} | head
            (folder / head_file).write_text(json.dumps(found), encoding="utf-8")
        return folder

    def pair(self, base, aligned=None, *, head=None, **options):
        head = head or {}
        one = self.write("base", base, **options, **head)
        return import_eval(one, self.write("aligned", base if aligned is None else aligned, **options, **head))

    def notes(self, *args, **options):
        return "\n".join(self.pair(*args, **options).notes)


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def api_prompt(asked):
    """What an API was sent is a conversation again, told as chat."""

    def holds(logs):
        found = logs.pair([generated(n, {"exact_match": 1.0}, asked=asked) for n in range(3)])
        item = found.suite.items[0]
        assert [m["content"] for m in item.messages] == ["Hi"]
        assert found.to_frame()["template"][0] == "chat"

    return holds


def noted(words, base=None, aligned=None, **options):
    """A note says it."""

    def holds(logs):
        lines = [choice(n) for n in range(4)]
        found = logs.notes(base or lines, aligned or lines, **options)
        assert words in found, found

    return holds


def head_pair(words, one, two):
    """A setting that differs between the logs is named."""

    def holds(logs):
        lines = [choice(n) for n in range(4)]
        notes = import_eval(logs.write("base", lines, **one), logs.write("aligned", lines, **two)).notes
        assert any(words in note for note in notes), notes

    return holds


def silent(words, one, two):
    """No note holds these words."""

    def holds(logs):
        lines = [choice(n) for n in range(4)]
        notes = import_eval(logs.write("base", lines, **one), logs.write("aligned", lines, **two)).notes
        assert not [note for note in notes if words in note], notes

    return holds


def metric(name, values, ours, mean=None):
    """A metric is read, under its name here, with the harness's own mean."""

    def holds(logs):
        frame = logs.pair([generated(n, {name: v}) for n, v in enumerate(values)]).to_frame().set_index("metric")
        assert frame.loc[ours, "base"] == pytest.approx(np.mean(values) if mean is None else mean, abs=1e-9)

    return holds


def rolling(name, ours, pairs, mean):
    """A metric over whole texts is added up over all words, bytes or tokens."""

    def holds(logs):
        lines = [
            {**generated(n, {name: list(v)}), "arguments": {"gen_args_0": {"arg_0": f"text {n}"}}}
            for n, v in enumerate(pairs)
        ]
        frame = logs.pair(lines).to_frame().set_index("metric")
        assert frame.loc[ours, "base"] == pytest.approx(mean, rel=1e-9)

    return holds


def corpus(name):
    """A metric of a whole corpus is named and left out."""

    def holds(logs):
        lines = [choice(n, **{name: [0, 1]}) for n in range(4)]
        head = {"results": {"quiz": {f"{name},none": 0.1, "acc,none": 1.0}}}
        assert f"{name} exist(s) for the whole corpus alone" in logs.notes(lines, head=head)

    return holds


def own_scale(name, values):
    """Another number is kept in the log's own scale, and no claim of equivalence is made of it."""

    def holds(logs):
        row = logs.pair([generated(n, {name: v}) for n, v in enumerate(values)]).to_frame().iloc[0]
        assert row["metric"] == name
        assert row["base"] == pytest.approx(np.mean(values), abs=1e-9)
        assert pd.isna(row["p_equivalent"])

    return holds


def filters(keys):
    """Repeats of a document without a filter key are its filters."""

    def holds(logs):
        lines = []
        for n in range(4):
            for right in range(keys):
                line = generated(n, {"exact_match": float(right > 0)})
                del line["filter"]
                lines.append(line)
        base = logs.write("base", lines)
        for number in range(keys):
            name = "none" if number == 0 else f"filter {number + 1}"
            task = read_log(base, variant=name)["quiz"]
            assert {s.values["exact_match"] for s in task.samples.values()} == {float(number > 0)}

    return holds


def layout(file, head_file, *, array=False):
    """A layout is read with its settings."""

    def holds(logs):
        lines = [choice(n) for n in range(3)]
        folder = logs.write("base", lines, file=file, head_file=head_file)
        if array:
            (folder / file).write_text(json.dumps(lines))
        assert len(next(iter(read_log(folder).values())).samples) == 3

    return holds


def several_right(target, right):
    def holds(logs):
        lines = [choice(n, choices=(" a", " b", " c", " d"), target=target) for n in range(3)]
        assert logs.pair(lines).suite.items[0].right == right

    return holds


def refused(error, words, lines, other=None):
    """Refused in one clear sentence."""

    def holds(logs):
        with pytest.raises(error, match=words):
            logs.pair(lines, other)

    return holds


def cannot_be_asked(*choices):
    """Documents that cannot be asked stay in the ledger and leave the suite; what is written is read again."""

    def holds(logs):
        lines = [choice(n) for n in range(5)] + [choice(5, choices=choices)]
        out = logs.folder / "out.jsonl"
        found = import_eval(logs.write("base", lines), logs.write("aligned", lines), out=out)
        assert (found.to_frame()["n_items"][0], len(read_suite(out)), found.suites[0].left_out) == (6, 5, 1)

    return holds


_STEREOTYPE = {
    "target": "0", "metrics": ["likelihood_diff", "pct_stereotype"], "likelihood_diff": 2.0, "pct_stereotype": True, "acc": None,
}  # fmt: skip


def stereotype(**changes):
    def holds(logs):
        lines = [choice(n, **_STEREOTYPE | changes) for n in range(4)]
        frame = logs.pair(lines).to_frame()
        assert "accuracy" not in set(frame["metric"])
        assert logs.pair(lines).suite.items[0].gold == 1

    return holds


def answered(target, answers, match=""):
    """What a generation may answer is in the suite, so that it can be measured again."""

    def holds(logs):
        item = logs.pair([generated(n, {"exact_match": 1.0}, target=target) for n in range(3)]).suite.items[0]
        assert (item.answers, item.match) == (answers, match)

    return holds


def instructed(ids, kwargs, wanted):
    """The instructions of IFEval come along, so that new answers can be checked."""

    def holds(logs):
        doc = {"key": 1, "prompt": "Write.", "instruction_id_list": ids, "kwargs": kwargs}
        lines = [generated(n, {"prompt_level_strict_acc": True}, doc=doc, target=0) for n in range(3)]
        assert [dict(one) for one in logs.pair(lines).suite.items[0].instructions] == wanted

    return holds


def group(names, values):
    """A group of tasks is one suite and a row of its own, added up as the log does it."""

    def holds(logs):
        folders = []
        for side in ("base", "aligned"):
            for task in names:
                folder = logs.write(
                    side,
                    [choice(n, right=n > 0) for n in range(4)],
                    file=f"samples_{task}_{DATE}.jsonl",
                    head_file=None,
                )
            head = {
                "results": {t: {"acc,none": 0.75} for t in names} | {"all": {"acc,none": values}},
                "group_subtasks": {"all": list(names)},
            }
            (folder / f"results_{DATE}.json").write_text(json.dumps(head | {"model_name": side}))
            folders.append(folder)
        found = import_eval(*folders, task="all")
        assert found.to_frame().iloc[0]["suite"] == "all"
        assert found.to_frame().iloc[0]["base"] == values
        assert set(found.suites[0].groups) == set(names)

    return holds


KINDS = {
    "1c messages of an API": {
        "JSON in a list": api_prompt(['[{"role": "user", "content": "Hi"}]']),
        "JSON alone": api_prompt('[{"role": "user", "content": "Hi"}]'),
        "a list of messages": api_prompt([{"role": "user", "content": "Hi"}]),
        "content in parts": api_prompt([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]),
    },
    "3c totals that do not fit": {
        "fewer samples": noted("counts 100 documents", head={"n-samples": {"quiz": {"original": 900, "effective": 100}}}),
        "another aggregate": noted("the log's own is 0.5", head={"results": {"quiz": {"acc,none": 0.5}}}),
        "more samples": noted("counts 3 documents", head={"n-samples": {"quiz": {"original": 3, "effective": 3}}}),
    },
    "3d settings under other names": {
        "NAME_DATE.json": layout(f"samples_quiz_{DATE}.jsonl", f"mine_{DATE}.json"),
        "DATE_results.json": layout("20260102_030405_samples_quiz.jsonl", "20260102_030405_results.json"),
        "no results file": noted("no results file beside", head_file=None),
    },
    "3e settings that differ": {
        "few-shot": head_pair("few-shot examples differs", {"n-shot": {"quiz": 0}}, {"n-shot": {"quiz": 5}}),
        "generation": head_pair("generation differs", {"configs": {"quiz": {"generation_kwargs": {"temperature": 0}}}},
                                {"configs": {"quiz": {"generation_kwargs": {"temperature": 1}}}}),
        "system text": head_pair("system instruction differs", {"system_instruction": "Be good."}, {"system_instruction": "Be bad."}),
        "template": head_pair("base was asked in plain, aligned in chat", {}, {"chat_template": "{{ x }}"}),
    },
    "3f several right answers": {
        "two": several_right("[1, 3]", (1, 3)), "first and last": several_right("[0, 3]", (0, 3)), "three": several_right("[0, 1, 2]", (0, 1, 2)),
    },
    "3g what is not wanted": {"both metrics": stereotype(), "with a group": stereotype(doc={"bias_type": "age"}),
    "as a number": stereotype(pct_stereotype=1)},
    "3h whose accuracy_norm": {
        name: noted("accuracy_norm is the log's own", base=[choice(n, **{"acc_norm": 1.0, "metrics": ["acc", "acc_norm"]} | more) for n in range(4)])
        for name, more in {"plain": {}, "without a list of metrics": {"metrics": None}, "accents": {"choices": (" é", " no")}}.items()
    },
    "4 metrics of papers": {
        "IFEval strict": metric("prompt_level_strict_acc", [True, False, True], "prompt_level_strict"),
        "IFEval loose": metric("prompt_level_loose_acc", [True, False, True], "prompt_level_loose"),
        "IFEval by instruction": metric("inst_level_loose_acc", [[True, False], [True], [True]], "instruction_level_loose", 3 / 4),
        "HumanEval": metric("pass@1", [1.0, 0.0, 1.0], "pass_at_1"), "DROP em": metric("em", [1.0, 0.0, 0.0], "exact_match"),
        "DROP f1": metric("f1", [0.5, 0.25, 1.0], "f1"), "F1 as pairs": metric("f1", [[1, 1], [1, 0], [0, 0]], "f1", 2 / 3),
        "MATH": metric("math_verify", [1.0, 0.0, 1.0], "math_verify"),
        "mutual information": metric("acc_mutual_info", [1.0, 0.0], "accuracy_mutual_info"),
        "Brier": metric("brier_score", [0.25, 0.5], "brier_score"),
        "likelihood difference": metric("likelihood_diff", [1.5, 0.5], "likelihood_difference"),
    },
    "4 perplexity": {
        "word": rolling("word_perplexity", "word_perplexity", [(-30, 10), (-8, 2)], math.exp(38 / 12)),
        "byte": rolling("byte_perplexity", "byte_perplexity", [(-30, 40), (-8, 12)], math.exp(38 / 52)),
        "token": rolling("token_perplexity", "token_perplexity", [(-30, 20), (-8, 5)], math.exp(38 / 25)),
        "bits a byte": rolling("bits_per_byte", "bits_per_byte", [(-30, 40), (-8, 12)], 38 / 52 / math.log(2)),
    },
    "4 metrics of a corpus": {name: corpus(name) for name in ("bleu", "chrf", "mcc", "ter")},
    "4 other numbers": {"rouge": own_scale("rouge1", [31.5, 12.0]), "a judge": own_scale("gpt_score", [7, 9]),
    "seconds": own_scale("latency", [0.5, 2.5])},
    "4 filters without a key": {f"{n} filters": filters(n) for n in (2, 3, 4)},
    "4 layouts": {
        "0.4.2": layout("m_quiz.jsonl", "results.json", array=True),
        "array under today's name": layout(f"samples_quiz_{DATE}.jsonl", None, array=True),
        "leaderboard": layout("samples_leaderboard_quiz_2024-06-17T17-37-25.144953.json", "results_2024-06-17T17-37-25.144953.json"),
        "no date": layout("samples_quiz.jsonl", "results.json"), "renamed": layout("mine.jsonl", None),
        "date first": layout("20260102_030405_samples_quiz.jsonl", None),
    },
    "4 not finite": {
        value: refused(ItemError, r"not finite[\s\S]*jsonl:2", [choice(0), choice(1, filtered_resps=[[value, "False"], ["-1", "False"]])])
        for value in ("-inf", "nan", "inf")
    },
    "4 generations have their answer": {
        "a word": answered("Paris", ("Paris",)), "aliases": answered(["Paris", "Lutetia"], ("Paris", "Lutetia")),
        "a list as text": answered("['Paris', 'Lutetia']", ("Paris", "Lutetia")), "a worked solution": answered("so it is\n#### 42", ("42",),
        "gsm8k"),
    },
    "4 instructions come along": {
        "one": instructed(["punctuation:no_comma"], [{}], [{"id": "punctuation:no_comma"}]),
        "empty arguments": instructed(["punctuation:no_comma"], [{"num_words": None}], [{"id": "punctuation:no_comma"}]),
        "two": instructed(["punctuation:no_comma", "startend:quotation"], [{}, None], [{"id": "punctuation:no_comma"}, {"id": "startend:quotation"}]),
    },
    "4 groups": {"two tasks": group(("quiz_a", "quiz_b"), 0.75), "three": group(("quiz_a", "quiz_b", "quiz_c"), 0.75),
    "other names": group(("alpha", "beta"), 0.75)},
    "5 documents that cannot be asked": {
        "blank": cannot_be_asked(" x", ""), "a space": cannot_be_asked(" x", " "), "a line": cannot_be_asked(" x", "\n"),
        "equal": cannot_be_asked(" x", " x"), "equal but for space": cannot_be_asked(" x", " x "),
    },
    "ok-R other documents": {
        "other text": refused(PairMismatchError, "different documents", [choice(0)], [choice(0, doc_hash="other")]),
        "missing": refused(PairMismatchError, "lacks samples", [choice(0), choice(1)], [choice(0)]),
        "other right choice": refused(PairMismatchError, "which choice is right", [choice(0)], [choice(0, target="1")]),
        "twice": refused(ItemError, "logged twice", [choice(0), choice(0)]),
    },
    "7 no false alarm": {
        "addresses": silent("prompt differs", {"configs": {"quiz": {"doc_to_text": "<function f at 0x71fa>"}}},
        {"configs": {"quiz": {"doc_to_text": "<function f at 0x72fa>"}}}),
        "a tune of an it model": silent("swapped", {"model_name": "gemma-3-4b-it"}, {"model_name": "my-tune"}),
        "one seed": silent("differs", {"config": {"fewshot_seed": 1}}, {"config": {"fewshot_seed": 1}}),
    },
}  # fmt: skip


def test_every_kind_has_three_members():
    assert not {kind: list(members) for kind, members in KINDS.items() if len(members) < 3}


@pytest.mark.parametrize(("kind", "member"), [(kind, member) for kind, members in KINDS.items() for member in members])
def test_a_member_of_a_kind_is_met(kind, member, logs):
    KINDS[kind][member](logs)


def test_a_metric_that_is_not_in_both_logs_is_asked_about(logs):
    with pytest.raises(UsageError, match="metric of both logs"):
        lines = [choice(n) for n in range(4)]
        import_eval(logs.write("base", lines), logs.write("aligned", lines), metrics=["pass_at_1"])

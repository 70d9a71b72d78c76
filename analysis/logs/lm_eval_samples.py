"""One sample of an lm-evaluation-harness log, of any output type: what was asked, what is right, what was measured."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from taxlens.activations.items.messages import Message, messages_of, plain_text
from taxlens.analysis.logs.lm_eval_files import walk
from taxlens.analysis.logs.logged_metrics import CORPUS, METRICS, LoggedMetric
from taxlens.analysis.logs.records import LoggedSample, missing_field, short_fields
from taxlens.core.errors import ItemError, explain
from taxlens.core.json_text import JsonError, parse_json

_OF_THE_SAMPLE = frozenset(
    (
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
    )
)
_MARKS = (
    "<|im_start|>",
    "<start_of_turn>",
    "<|start_header_id|>",
    "[INST]",
    "<|user|>",
    "<|assistant|>",
    "<|start_of_role|>",
    "<｜User｜>",
)
"""Texts by which a prompt shows that a chat template made it, where no results file says so."""


def sample_of(
    line: Mapping[str, Any], where: str, *, higher: Mapping[str, Any]
) -> tuple[LoggedSample, dict[str, LoggedMetric]]:
    """A line of the log as a sample, and the metrics of its values.

    Args:
        line: the JSON object.
        where: file and line, for errors.
        higher: the results file's ``higher_is_better`` of the task, for metrics that are unknown here.

    Raises:
        ItemError: the sample cannot be read.
    """
    for name in ("doc_id", "arguments"):
        if name not in line:
            raise missing_field(name, where, line)
    responses = line.get("filtered_resps", line.get("resps"))
    if responses is None:
        raise missing_field("filtered_resps", where, line)
    document = line["doc"] if isinstance(line.get("doc"), dict) else {}
    arguments = _arguments(line["arguments"], where)
    values, metrics = _values(line, where, higher)
    common: dict[str, Any] = {
        "key": str(line["doc_id"]),
        "doc_hash": str(line.get("doc_hash") or document_hash(document)),
        "prompt_hash": str(line.get("prompt_hash") or ""),
        "document": short_fields(document),
        "values": values,
    }
    scored = [pair for pair in arguments if isinstance(pair[1], str)]
    if len(scored) < 2:
        return _without_choices(line, arguments, responses, common, where), metrics
    if (
        "acc_mutual_info" in line
        and len(scored) % 2 == 0
        and all(not context for context, _ in scored[len(scored) // 2 :])
    ):
        scored = scored[: len(scored) // 2]
    sample = _with_choices(line, scored, responses, document, common, where)
    if "mc2" in sample.values and "mc2" not in metrics:
        metrics = {"mc2": METRICS["mc2"]} | {name: metric for name, metric in metrics.items() if name != "accuracy"}
    return sample, metrics


def document_hash(document: Mapping[str, Any]) -> str:
    """The hash that the harness gives a document, for logs of versions that wrote none."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def looks_rendered(prompt: str) -> bool:
    """Whether a prompt holds the marks of a chat template."""
    return any(mark in prompt for mark in _MARKS)


def _without_choices(
    line: Mapping[str, Any], arguments: list[tuple[Any, Any]], responses: Any, common: dict[str, Any], where: str
) -> LoggedSample:
    """A generated answer, one continuation whose likelihood was logged, or a whole text."""
    asked, other = arguments[0]
    messages = messages_in(asked, where)
    prompt = plain_text(messages) if messages else str(asked)
    shared = common | {"prompt": prompt, "messages": messages, "choices": (), "gold": None}
    if isinstance(other, str):
        return LoggedSample(
            logp=_likelihoods(responses, 1, where),
            continuation=other,
            answers=(other.strip(),) if other.strip() else (),
            **shared,
        )
    if other is None:
        return LoggedSample(logp=None, match="text", **shared)
    document = line["doc"] if isinstance(line.get("doc"), dict) else {}
    told = _instructions(document)
    return LoggedSample(logp=None, answers=_answers(line.get("target")), instructions=told, **shared)


def _with_choices(
    line: Mapping[str, Any],
    scored: list[tuple[Any, str]],
    responses: Any,
    document: Mapping[str, Any],
    common: dict[str, Any],
    where: str,
) -> LoggedSample:
    choices = tuple(choice for _, choice in scored)
    logp = _likelihoods(responses, len(choices), where, most=2 * len(choices))
    contexts = tuple(str(prompt) for prompt, _ in scored)
    if len(set(contexts)) == 1 and (len(set(choices)) > 1 or not _is_gap(document)):
        messages = messages_in(scored[0][0], where)
        right = _right(line, choices, where)
        if _mc2(line, choices) and "accuracy" in common["values"]:
            values = dict(common["values"])
            common = common | {"values": {"mc2": values.pop("accuracy")} | values}
        prompt = plain_text(messages) if messages else contexts[0]
        return LoggedSample(
            prompt=prompt, choices=choices, gold=right[0], also_right=right[1:], logp=logp, messages=messages, **common
        )
    if len(set(contexts)) > 1:
        _check_gap(contexts, choices, where)
    gold = _gap_gold(line, document, logp, where)
    return LoggedSample(prompt="", choices=choices, gold=gold, logp=logp, contexts=contexts, **common)


def messages_in(asked: Any, where: str) -> tuple[Message, ...]:
    """The conversation that a chat API was sent, which the harness logs as JSON in a list; empty where it is a text."""
    if isinstance(asked, Sequence) and not isinstance(asked, str) and len(asked) == 1 and isinstance(asked[0], str):
        asked = asked[0]
    if isinstance(asked, str) and asked.lstrip().startswith('[{"role"'):
        try:
            asked = parse_json(asked)
        except JsonError:
            return ()
    if isinstance(asked, list) and asked and all(isinstance(message, dict) for message in asked):
        return messages_of([{"role": m.get("role"), "content": _text(m.get("content"))} for m in asked], where=where)
    return ()


def _text(content: Any) -> Any:
    """The text of a message that is written in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content


def _arguments(given: Any, where: str) -> list[tuple[Any, Any]]:
    """(context, continuation or options) pairs, in any of the shapes that the harness has written."""
    if isinstance(given, dict):
        numbered = {name.rsplit("_", 1)[-1]: value for name, value in given.items() if isinstance(value, dict)}
        entries = sorted((int(number), value) for number, value in numbered.items() if number.isdecimal())
        found = [(value.get("arg_0"), value.get("arg_1")) for _, value in entries]
        if len(entries) < len(given):
            rows = [("at", where), ("expected", "gen_args_0, gen_args_1, ..."), ("got", ", ".join(given)[:80])]
            raise ItemError(explain("the arguments of a logged sample are not numbered.", rows))
    else:
        found = [
            (pair[0], pair[1] if len(pair) > 1 else None)
            for pair in (given if isinstance(given, list | tuple) else ())
            if isinstance(pair, list | tuple) and pair
        ]
    if not found:
        raise ItemError(explain("a sample of the log has no prompt.", [("at", where), ("arguments", repr(given)[:80])]))
    return found


def _likelihoods(responses: Any, count: int, where: str, *, most: int | None = None) -> tuple[float, ...]:
    """The first number of every response, which is the log-probability of its choice."""
    while isinstance(responses, list) and len(responses) == 1 and isinstance(responses[0], list) and count > 1:
        responses = responses[0]
    found = []
    for response in responses if isinstance(responses, list) else [responses]:
        first = next(iter(walk(response)), None)
        try:
            found.append(float(first))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            rows = [("at", where), ("response", repr(response)[:80])]
            raise ItemError(explain("a response holds no log-probability.", rows)) from error
    if count == 1 and found:
        found = found[:1]
    if len(found) != count and not (most and len(found) == most):
        rows = [("at", where), ("choices", count), ("log-probabilities", len(found))]
        raise ItemError(explain("a sample has not one log-probability a choice.", rows))
    for number, value in enumerate(found[:count]):
        if not math.isfinite(value):
            rows = [("at", where), ("choice", number), ("log-probability", value)]
            fix = "evaluate that document again (float32, or another backend), or take its line out of both logs."
            raise ItemError(explain("a log-probability of the log is not finite.", rows, fix))
    return tuple(found[:count])


def _values(
    line: Mapping[str, Any], where: str, higher: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, LoggedMetric]]:
    values: dict[str, Any] = {}
    metrics: dict[str, LoggedMetric] = {}
    listed = line.get("metrics")
    named = [name for name in listed if name in line] if isinstance(listed, list) else []
    others = [name for name in line if name not in _OF_THE_SAMPLE and name not in named]
    names = named + [name for name in others if name in METRICS or (not named and isinstance(line[name], int | float))]
    for name in names:
        found = _value(name, line[name], where)
        if found is not None:
            known = METRICS.get(found[0]) or LoggedMetric(
                name, unit="the log's own", sign=1 if higher.get(name, True) else -1
            )
            if known.name not in values or known.name == name:
                values[known.name], metrics[known.name] = found[1], known
    return values, metrics


def _value(name: str, value: Any, where: str) -> tuple[str, float | tuple[float, float]] | None:
    """(name in `METRICS`, number or pair of numbers), or None for what is no number of an item."""
    if name in CORPUS or value is None or isinstance(value, str):
        return None
    known = METRICS.get(name)
    if isinstance(value, bool | int | float):
        number = float(value)
        if not math.isfinite(number):
            rows = [("at", where), ("metric", name), ("value", value)]
            raise ItemError(explain("a metric of a sample is not finite.", rows, "take its line out of both logs."))
        return name, (number, 1.0) if known is not None and known.form != "mean" else number
    if not isinstance(value, list):
        return None
    if name == "f1" and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        gold, said = int(value[0]), int(value[1])  # F1 of the class 1 over all documents
        return "f1_class", (2.0 * (gold == 1 and said == 1), float((gold == 1) + (said == 1)))
    if name == "brier_score" and len(value) == 2 and isinstance(value[1], list):
        gold, shares = int(value[0]), [float(v) for v in value[1]]
        return "brier_score_class", sum((share - (n == gold)) ** 2 for n, share in enumerate(shares))
    if known is not None and known.form == "perplexity" and len(value) == 2:
        return name, (float(value[0]), float(value[1]))
    if name == "bits_per_byte" and len(value) == 2:
        return name, (-float(value[0]) / math.log(2), float(value[1]))
    if known is not None and known.form == "ratio" and all(isinstance(v, bool | int | float) for v in value):
        return name, (float(sum(value)), float(len(value)))
    return None


def _instructions(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The instructions of a document of IFEval, with the arguments that are there; empty for all others."""
    ids, given = document.get("instruction_id_list"), document.get("kwargs")
    if not isinstance(ids, list) or not isinstance(given, list) or len(ids) != len(given):
        return ()
    told = [{name: value for name, value in dict(one or {}).items() if value is not None} for one in given]
    return tuple({"id": str(name), **one} for name, one in zip(ids, told))


def _answers(target: Any) -> tuple[str, ...]:
    """The accepted answers of a generation; a list is logged as its text."""
    if isinstance(target, str) and target.strip().startswith("["):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            target = ast.literal_eval(target.strip())
    values = target if isinstance(target, list) else [target]
    return tuple(dict.fromkeys(str(value).strip() for value in values if value is not None and str(value).strip()))


def _right(line: Mapping[str, Any], choices: tuple[str, ...], where: str) -> tuple[int, ...]:
    """The right choices: an index, a list of them, or the text of one."""
    target = line.get("target")
    if line.get("metrics") == ["likelihood_diff", "pct_stereotype"] or "pct_stereotype" in line:
        return (1,)  # the harness logs the stereotype as target; the other sentence is what is wanted
    text = str(target).strip()
    if text.startswith("["):
        try:
            listed = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            listed = None
        if isinstance(listed, list) and listed and all(isinstance(n, int) and 0 <= n < len(choices) for n in listed):
            return tuple(dict.fromkeys(listed))
    several = _mc2(line, choices)
    if several:
        return several
    if text.lstrip("-").isdigit() and 0 <= int(text) < len(choices):
        return (int(text),)
    stripped = [choice.strip() for choice in choices]
    if stripped.count(text) == 1:
        return (stripped.index(text),)
    if len(text) == 1 and text.isalpha() and ord(text.upper()) - ord("A") < len(choices) and stripped.count(text) == 0:
        return (ord(text.upper()) - ord("A"),)
    rows = [("at", where), ("target", repr(target)), ("choices", ", ".join(map(repr, choices)))]
    raise ItemError(explain("the target of a sample names none of its choices, or several.", rows))


def _mc2(line: Mapping[str, Any], choices: tuple[str, ...]) -> tuple[int, ...]:
    """The right choices where a sample asks all of TruthfulQA's answers (mc2); empty elsewhere."""
    document = line.get("doc")
    targets = document.get("mc2_targets") if isinstance(document, dict) else None
    if not isinstance(targets, dict) or not isinstance(targets.get("labels"), list):
        return ()
    asked = [choice.strip() for choice in choices]
    if asked != [str(choice).strip() for choice in targets.get("choices", ())]:
        return ()
    first = document.get("mc1_targets") if isinstance(document, dict) else None
    same = isinstance(first, dict) and asked == [str(choice).strip() for choice in first.get("choices", ())]
    return (
        ()
        if same and line.get("acc") in (0, 1)
        else tuple(n for n, label in enumerate(targets["labels"]) if label == 1)
    )


def _is_gap(document: Mapping[str, Any]) -> bool:
    return "option1" in document and "option2" in document


def _check_gap(contexts: tuple[str, ...], choices: tuple[str, ...], where: str) -> None:
    """Contexts that differ must do so for every choice, and their continuation must be one."""
    if len(set(contexts)) == len(contexts) and len(set(choices)) == 1:
        return
    rows = [
        ("at", where),
        ("contexts", f"{len(set(contexts))} different of {len(contexts)}"),
        ("continuations", f"{len(set(choices))} different of {len(choices)}"),
    ]
    fix = "taxlens reads one prompt with several choices, or several contexts with one continuation (Winogrande)."
    raise ItemError(explain("the choices of a sample have different prompts.", rows, fix))


def _gap_gold(line: Mapping[str, Any], document: Mapping[str, Any], logp: tuple[float, ...], where: str) -> int:
    """Which context is right: the harness logs the continuation as target, so it follows from what acc says."""
    answer = str(document.get("answer", "")).strip()
    if len(set(logp)) == 1 and answer in ("1", "2") and len(logp) == 2:
        return int(answer) - 1  # both options are one text: acc says nothing
    best = max(range(len(logp)), key=lambda place: logp[place])  # the first of equals, as the harness takes it
    if line.get("acc") in (1, 1.0):
        return best
    if line.get("acc") in (0, 0.0):
        others = [place for place in range(len(logp)) if place != best]
        named = [place for place in others if answer == str(place + 1)]
        if len(others) == 1 or len(named) == 1:
            return others[0] if len(others) == 1 else named[0]
    rows = [("at", where), ("acc", line.get("acc")), ("contexts", len(logp)), ("fields", ", ".join(document))]
    fix = "such a log tells the right context by acc of two choices, or by a document field 'answer' of 1, 2, ..."
    raise ItemError(explain("the log does not tell which of a sample's contexts is right.", rows, fix))

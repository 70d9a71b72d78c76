"""What will be captured, row by row: which tokens both models read, and where each row is taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.sampling import draw_foil
from taxlens.activations.items.spans import SpanMap, coverage, label_span, matched
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import ModelPair
from taxlens.activations.models.prompts import as_asked
from taxlens.core.errors import PairMismatchError, UsageError, explain, one_of
from taxlens.core.vocabularies import TEMPLATES

POSITIONS = ("last", "all", "answer", "mean", "span:LABEL")
COVERAGE = 0.9  # least share of an item's characters that both models must see in common tokens


@dataclass(frozen=True, slots=True)
class CaptureRow:
    """One sequence that both models read, and the rows taken from it.

    Args:
        base, aligned: each model's tokens.
        spans: for each row (base first, base stop, aligned first, aligned stop): the row is the mean over these
            tokens, a single one in every mode but "mean".
    """

    base: Row
    aligned: Row
    spans: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Every row of a store, in order, before anything is captured.

    Args:
        readings: the sequences, in the store's order (suite, item, template, then prompt, gold, foil).
        first_row: row number of each reading's first row, and the total at the end [readings + 1].
        first_reading: number of each item's first reading, and the total at the end [items + 1].
        frame: the row index [rows, columns] as in `Store.rows`.
        coverage: (suite, template, lowest, mean, items): share of an item's characters that stand in common tokens.
    """

    readings: tuple[CaptureRow, ...]
    first_row: np.ndarray
    first_reading: np.ndarray
    frame: pd.DataFrame
    coverage: tuple[tuple[str, str, float, float, int], ...]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.first_row[-1])

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.first_reading) - 1

    @property
    def tokens(self) -> int:
        """Number of tokens that both models read together."""
        return sum(len(r.base.ids) + len(r.aligned.ids) for r in self.readings)


@dataclass(frozen=True, slots=True)
class _Case:
    """One item in one template, with each model's tokenizer at hand."""

    suite: Suite
    index: int
    template: str
    pair: ModelPair
    positions: str

    @property
    def item(self) -> Item:
        return self.suite.items[self.index]

    def maps(self) -> tuple[SpanMap, SpanMap]:
        base, aligned = (
            as_asked(self.pair, m, self.template).spans(self.item) for m in (self.pair.base, self.pair.aligned)
        )
        return base, aligned

    def mismatch(self, title: str, rows: list[tuple[str, object]], fix: str) -> PairMismatchError:
        where = [("suite", self.suite.name), ("item", repr(self.item.id)), ("template", self.template)]
        return PairMismatchError(explain(title, [*where, *rows], fix))


def make_plan(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    templates: Sequence[str] = ("plain",),
    positions: str = "last",
    seed: int = 0,
    items: tuple[int, int] | None = None,
) -> RowPlan:
    """Return every row that a capture will hold.

    Rows of an item: its prompt (or text) without choice, and where it has choices its prompt with the gold choice and
    with one wrong choice drawn by the seed, both read at the choice's last token.

    Args:
        pair: the two models (their tokenizers and templates are used).
        suites: what to read.
        templates: "plain" and/or "chat".
        positions: "last" token; "all" tokens of prompts and texts; "answer", every token of the choices; "mean"
            over the content (or the choice); "span:LABEL", the last token of the text that a label names.
        seed: draws the wrong choices; each depends on the suite's name and the item's id alone.
        items: (first, stop) of all items, suite after suite, for one part of a capture; None: all.

    Raises:
        UsageError: if templates, positions or the range make no sense.
        ItemError: if an item cannot be tokenised, is too long, or has no such span.
        PairMismatchError: if the two models see different tokens or too little common content.
    """
    _check_request(suites, templates, positions)
    bounds = _item_range(suites, items)
    readings: list[CaptureRow] = []
    firsts: list[int] = []
    records: list[dict[str, object]] = []
    covered: dict[tuple[str, str], list[float]] = {}
    offset = 0
    for suite in suites:
        chosen = range(max(bounds[0] - offset, 0), min(bounds[1] - offset, len(suite)))
        offset += len(suite)
        rows = {t: _rows_of(pair, suite.subset(chosen), t) for t in templates} if len(chosen) else {}
        for number, index in enumerate(chosen):
            firsts.append(len(readings))
            for template in templates:
                case = _Case(suite, index, template, pair, positions)
                if template == "chat":
                    covered.setdefault((suite.name, template), []).append(_check_coverage(case))
                for key, (base, aligned) in _pairs(rows[template], number, case, seed).items():
                    spans = _spans(case, base, aligned)
                    readings.append(CaptureRow(base, aligned, spans))
                    records += _records(case, key, base, spans, pair.base)
    counts = [len(reading.spans) for reading in readings]
    return RowPlan(
        readings=tuple(readings),
        first_row=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        first_reading=np.array([*firsts, len(readings)], dtype=np.int64),
        frame=_frame(records, suites),
        coverage=tuple((s, t, min(c), float(np.mean(c)), len(c)) for (s, t), c in covered.items()),
    )


def _check_request(suites: Sequence[Suite], templates: Sequence[str], positions: str) -> None:
    if not suites:
        raise UsageError(explain("nothing to capture.", [("suites", 0)], "give a suite."))
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        rows = [("suites", ", ".join(names))]
        raise UsageError(explain("two suites have one name.", rows, "name each suite differently."))
    if not templates:
        raise UsageError(explain("no template is asked for.", [("must be", ", ".join(TEMPLATES))]))
    for template in templates:
        one_of(template, TEMPLATES, what="template")
    if not (positions.startswith("span:") and positions != "span:"):
        one_of(positions, POSITIONS, what="positions")
        if positions == POSITIONS[-1]:
            raise UsageError(explain("positions: span needs a label.", [("got", positions)], "span:subject"))


def _item_range(suites: Sequence[Suite], items: tuple[int, int] | None) -> tuple[int, int]:
    total = sum(len(suite) for suite in suites)
    if items is None:
        return 0, total
    first, stop = items
    if not 0 <= first < stop <= total:
        rows = [("got", f"{first} to {stop}"), ("items", total)]
        raise UsageError(explain("this range of items is not there.", rows, f"use 0 to {total}."))
    return first, stop


Encoded = dict[str, dict[tuple[int, int], Row]]


def _rows_of(pair: ModelPair, suite: Suite, template: str) -> Encoded:
    found = {}
    for name, loaded in pair.models():
        asked = as_asked(pair, loaded, template)
        found[name] = {(row.item, row.choice): row for row in [*asked.prompt_rows(suite), *asked.rows(suite)]}
    return found


def _pairs(rows: Encoded, number: int, case: _Case, seed: int) -> dict[str, tuple[Row, Row]]:
    """The sequences of one item: kind -> (base's row, aligned's row)."""
    item = case.item
    keys = {"text" if item.text is not None else "prompt": -1}
    if item.choices:
        keys |= {"gold": int(item.gold or 0), "foil": draw_foil(case.suite.name, item, seed)}
    found = {}
    for kind, choice in keys.items():
        if (number, choice) not in rows["base"]:
            continue  # an empty prompt has no row of its own
        base, aligned = rows["base"][number, choice], rows["aligned"][number, choice]
        if case.template == "plain" and base.ids != aligned.ids:
            at = next((i for i, (a, b) in enumerate(zip(base.ids, aligned.ids, strict=False)) if a != b), None)
            got = "lengths" if at is None else f"token {at}: base {base.ids[at]}, aligned {aligned.ids[at]}"
            fix = "give both checkpoints the same tokenizer files."
            raise case.mismatch("the two tokenizers disagree on an item.", [("first difference", got)], fix)
        for model, row in (("base", base), ("aligned", aligned)):
            _check_ids(case, model, row)
        found[kind] = (base, aligned)
    return found


def _check_ids(case: _Case, model: str, row: Row) -> None:
    loaded: LoadedModel = getattr(case.pair, model)
    size = loaded.model.get_input_embeddings().weight.shape[0]
    if max(row.ids) >= size:
        rows: list[tuple[str, object]] = [("model", model), ("token id", max(row.ids)), ("embedding rows", size)]
        raise case.mismatch("a model has no embedding for a token.", rows, "use templates and items that both know.")


def _check_coverage(case: _Case) -> float:
    if case.item.text is None and not (case.item.prompt or "").strip():
        return 1.0
    share = coverage(case.item, *case.maps())
    if share < COVERAGE:
        rows: list[tuple[str, object]] = [("coverage", f"{share:.0%} of its characters, at least {COVERAGE:.0%}")]
        fix = "chat_template: aligned (one template for both), or templates: [plain]."
        raise case.mismatch("the chat templates leave too little of an item in common.", rows, fix)
    return share


def _spans(case: _Case, base: Row, aligned: Row) -> tuple[tuple[int, int, int, int], ...]:
    if base.kind == "choice":
        return _choice_spans(case, base, aligned)
    n, m = len(base.ids), len(aligned.ids)
    if case.positions in ("last", "answer"):
        if case.template == "plain" or base.kind == "prompt":
            return ((n - 1, n, m - 1, m),)
        one, two = matched(*case.maps())[-1]
        return ((one, one + 1, two, two + 1),)
    if case.positions == "all" and case.template == "plain":
        return tuple((i, i + 1, i, i + 1) for i in range(n))
    if case.positions == "all":
        return tuple((i, i + 1, j, j + 1) for i, j in matched(*case.maps()))
    maps = case.maps()
    if case.positions == "mean":
        tokens = matched(*maps)
        return ((tokens[0][0], tokens[-1][0] + 1, tokens[0][1], tokens[-1][1] + 1),)
    name = case.positions.removeprefix("span:")
    one, two = label_span(case.item, name, maps[0])[1], label_span(case.item, name, maps[1])[1]
    return ((one - 1, one, two - 1, two),)


def _choice_spans(case: _Case, base: Row, aligned: Row) -> tuple[tuple[int, int, int, int], ...]:
    n, m = len(base.ids), len(aligned.ids)
    if case.positions not in ("answer", "mean"):
        return ((n - 1, n, m - 1, m),)
    width = min(n - base.start, m - aligned.start)  # a template may leave white space before the choice
    if base.ids[-width:] != aligned.ids[-width:]:
        got: list[tuple[str, object]] = [("base", base.ids[-width:]), ("aligned", aligned.ids[-width:])]
        fix = "give both checkpoints the same tokenizer files."
        raise case.mismatch("the two tokenizers disagree on a choice.", got, fix)
    if case.positions == "mean":
        return ((n - width, n, m - width, m),)
    return tuple((n - i, n - i + 1, m - i, m - i + 1) for i in range(width, 0, -1))


def _records(
    case: _Case, kind: str, base: Row, spans: Sequence[tuple[int, int, int, int]], loaded: LoadedModel
) -> list[dict[str, object]]:
    item = case.item
    own = {f"label.{name}": value for name, value in item.labels.items()} if base.kind != "choice" else {}
    shared = {
        "suite": case.suite.name,
        "template": case.template,
        "item": item.id,
        "choice": base.choice,
        "kind": kind,
        "group": item.group,
        "correct": {"gold": 1.0, "foil": 0.0}.get(kind, np.nan),
        **own,
    }
    ids = [base.ids[stop - 1] for _, stop, _, _ in spans]
    texts = [_visible(loaded.tokenizer.decode([token])) for token in ids]
    return [
        {**shared, "token": text, "token_id": token, "position": span[1] - 1, "position_aligned": span[3] - 1}
        for token, text, span in zip(ids, texts, spans, strict=True)
    ]


def _visible(text: str) -> str:
    return text.replace("\x00", "\\0")


COLUMNS = ("suite", "template", "item", "choice", "kind", "group", "token", "token_id", "position", "position_aligned",
           "correct")  # fmt: skip


def _frame(records: list[dict[str, object]], suites: Sequence[Suite]) -> pd.DataFrame:
    """The row index; a label's column is numeric if all its values in all suites are, else text."""
    values: dict[str, list[object]] = {}
    for suite in suites:
        for item in suite.items:
            for name, value in item.labels.items():
                values.setdefault(name, []).append(value)
    labels = {f"label.{name}": _is_number(found) for name, found in sorted(values.items())}
    frame = pd.DataFrame.from_records(records, columns=[*COLUMNS, *labels])
    for column in ("choice", "token_id", "position", "position_aligned"):
        frame[column] = frame[column].astype(np.int64)
    frame["correct"] = frame["correct"].astype(np.float64)
    for column, number in labels.items():
        if number:
            frame[column] = frame[column].astype(np.float64)
        else:
            frame[column] = pd.Series([None if v is None or v != v else str(v) for v in frame[column]], dtype=object)
    return frame


def _is_number(values: list[object]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)

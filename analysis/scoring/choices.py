"""Log-probabilities of choices under a model: the one home of scoring.

The arithmetic is lm-eval's loglikelihood: the sum over a choice's tokens of their
log-probabilities given the context. Batches are cut by a budget of padded tokens, right
padded, with explicit mask and positions; sums are in float64. Scores depend on the batch
they were computed in by rounding only (about 1e-5 nats in float32).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from taxlens.activations.items.batches import Piece, packed, pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.out_of_memory import in_halves
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import length_class, network, position_limit
from taxlens.activations.models.prompts import Prompting
from taxlens.activations.models.token_ids import embedding_rows
from taxlens.analysis.scoring.logits import LOGIT_BUDGET, asked_logits, target_log_probabilities
from taxlens.analysis.scoring.long_prompts import fused_attention
from taxlens.analysis.scoring.metrics import CHOICE_METRICS, item_metrics, metric_of
from taxlens.analysis.scoring.shared_prompt import score_shared
from taxlens.core.errors import ItemError, TaxlensError, explain
from taxlens.core.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring found for each row.

    Attributes:
        logp: [rows] float64, log-probability of the row's choice tokens, nats.
        n_tokens: [rows] int64, tokens of the choice.
        greedy: [rows] bool, whether every token of the choice was the model's first choice.
    """

    logp: np.ndarray
    n_tokens: np.ndarray
    greedy: np.ndarray


PIECE = 256
"""Items that a piece of scoring holds, about, where several workers share it."""


@dataclass(frozen=True, slots=True)
class SuiteScores:
    """One model's scores on the items of a suite that have choices.

    Attributes:
        suite: name of the suite.
        template: ``plain`` or ``chat``.
        items: [n] item ids.
        groups: [n] item groups.
        logp: [n, choices] float64 nats; NaN past an item's last choice.
        gold: [n] index of the right choice.
        n_bytes: [n, choices] UTF-8 bytes of each choice as written in the item.
        n_tokens: [n, choices] tokens of each choice.
        greedy: [n, choices] whether the choice is what greedy decoding would say.
        shared: whether choices of an item shared the computation of its prompt.
        right: [n, choices] whether a choice is right, where an item has several right ones; else None.
    """

    suite: str
    template: str
    items: tuple[str, ...]
    groups: np.ndarray
    logp: np.ndarray
    gold: np.ndarray
    n_bytes: np.ndarray
    n_tokens: np.ndarray
    greedy: np.ndarray
    shared: bool
    right: np.ndarray | None = None

    def metrics(self, metrics: Sequence[str] = CHOICE_METRICS) -> dict[str, np.ndarray]:
        """Each metric on each item: {metric: [n]} (see `item_metrics`).

        Of several right choices any counts for metrics of right and wrong, as in lm-eval, and for the margin the likeliest;
        all others take them together: ``probability`` is then the share of all right ones, TruthfulQA's mc2.
        """
        if self.right is None:
            return item_metrics(self.logp, self.gold, n_bytes=self.n_bytes, metrics=metrics)
        found = {}
        for name in metrics:
            any_counts = metric_of(name).hit or name == "margin"
            scores = self.logp / np.where(self.n_bytes > 0, self.n_bytes, 1) if metric_of(name).by_bytes else self.logp
            table, sizes = one_right(scores, self.gold, self.right, together=not any_counts), np.ones(scores.shape)
            found |= item_metrics(table, self.gold, n_bytes=sizes, metrics=[name])
        return found

    @property
    def choice(self) -> np.ndarray:
        """[n] the index of the choice that the model prefers (first of equals)."""
        return np.argmax(np.where(np.isnan(self.logp), -np.inf, self.logp), axis=1)

    @property
    def hit(self) -> np.ndarray:
        """[n] bool, whether that choice is a right one."""
        if self.right is None:
            return self.choice == self.gold
        return self.right[np.arange(len(self.gold)), self.choice]


def one_right(scores: np.ndarray, gold: np.ndarray, right: np.ndarray, *, together: bool) -> np.ndarray:
    """Scores with one right choice an item: at ``gold`` stands what all right ones have together, or the best of them.

    Args:
        scores: [n, choices] nats, NaN past an item's last choice.
        gold: [n] the place that is kept.
        right: [n, choices] which are right.
        together: the log of the sum of their probabilities; else the largest.
    """
    present = np.where(np.isnan(scores) | ~right, -np.inf, scores)
    best = present.max(axis=1)
    value = best + np.log(np.exp(present - best[:, None]).sum(axis=1)) if together else best
    table = np.where(right, np.nan, scores)
    table[np.arange(len(gold)), gold] = value
    return table


def score_rows(
    model: Any,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 4096,
    part: tuple[int, int] = (0, 1),
    progress: Progress = SILENT,
) -> Scored:
    """Score rows one by one: the log-probability of each row's tokens from ``start`` on.

    Args:
        model: a Hugging Face causal language model (as it is, on its device), or a loaded model of a pair.
        rows: token rows; a row's choice is ``ids[start:]``, at least one token, start at least 1.
        batch_tokens: most padded tokens in one batch.
        part: (k, n): every n-th batch from the k-th; rows of others keep 0 and True, so that parts sum to the whole.
        progress: told of every batch.

    Returns:
        Scored, in the order of ``rows``.

    Raises:
        TaxlensError: a score came out NaN or infinite.
    """
    logp = np.zeros(len(rows))
    greedy = np.ones(len(rows), dtype=bool)
    hf = network(model)
    of, vocabulary = length_class(hf), hf.config.get_text_config().vocab_size
    sizes = [len(row.ids) - 1 for row in rows]
    pieces = [Piece(size, asked=len(row.ids) - row.start, kind=of(size)) for size, row in zip(sizes, rows, strict=True)]
    with progress.task("score", total=len(rows), unit="rows") as task:
        batches = packed(pieces, batch_tokens=batch_tokens, most_asked=max(1, LOGIT_BUDGET // vocabulary))
        for batch in batches[part[0] :: part[1]]:
            done = in_halves(partial(_scored, hf), [rows[i] for i in batch], what="scoring")
            logp[batch] = np.concatenate([one for one, _ in done])
            greedy[batch] = np.concatenate([one for _, one in done])
            task.advance(len(batch))
    check_finite(logp)
    return Scored(logp, np.array([len(row.ids) - row.start for row in rows]), greedy)


def _scored(hf: Any, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each row's choice, and whether greedy decoding would say it: one forward pass."""
    asked = [(b, p) for b, row in enumerate(rows) for p in range(row.start - 1, len(row.ids) - 1)]
    targets = [token for row in rows for token in row.ids[row.start :]]
    logits = asked_logits(hf, *pad(_read(rows), 0), asked)
    values, first = target_log_probabilities(logits, range(len(asked)), targets)
    owner = np.array([b for b, _ in asked])
    return np.bincount(owner, values.numpy(), len(rows)), np.bincount(owner, ~first.numpy(), len(rows)) == 0


def score_suite(
    model: Any,
    suite: Suite,
    *,
    template: str = "plain",
    tokenizer: Any = None,
    chat_template: str | None = None,
    prompting: Prompting | None = None,
    batch_tokens: int = 4096,
    share_prefix: bool = True,
    part: tuple[int, int] = (0, 1),
    progress: Progress = SILENT,
) -> SuiteScores:
    """Score every choice of every item of a suite under one model.

    Args:
        model: a loaded model of a pair, or any Hugging Face causal language model with ``tokenizer``.
        suite: items; those without choices are passed over.
        template: ``plain`` or ``chat``.
        tokenizer: needed where ``model`` is a bare Hugging Face model.
        chat_template: text of the template for ``chat``; by default the loaded model's own.
        prompting: how the model is asked, instead of template, tokenizer and chat_template.
        batch_tokens: most padded tokens in one batch.
        share_prefix: compute an item's prompt once for all its choices. Checked on the first
            item against separate rows; where the model cannot (the scores differ by more than
            1e-3 nats), rows are scored separately and ``shared`` is False.
        part: (k, n): every n-th batch from the k-th (see `joined_scores`).
        progress: told of every batch.

    Returns:
        SuiteScores, items in suite order.

    Raises:
        ItemError: no item has choices, or two choices of an item become the same tokens.
        TaxlensError: a score came out NaN or infinite.
    """
    if prompting is None:
        tokenizer = tokenizer if tokenizer is not None else model.tokenizer
        if template == "chat" and chat_template is None:
            chat_template = getattr(model, "chat_template", None)
        prompting = Prompting(tokenizer, template, chat_template, position_limit(model), embedding_rows(model))
    hf = network(model)
    rows = prompting.rows(suite)
    if not rows:
        rows_ = [("suite", suite.name), ("items", len(suite))]
        raise ItemError(explain("no item of the suite has choices to score.", rows_, "add choices and gold."))
    _check_distinct(suite, rows)
    with fused_attention(hf, max(len(row.ids) for row in rows)):
        how: dict[str, Any] = {"batch_tokens": batch_tokens, "part": part, "progress": progress}
        scored = score_shared(hf, rows, **how) if share_prefix else None
        shared = scored is not None
        if scored is None:
            found = score_rows(hf, rows, **how)
            scored = (found.logp, found.greedy)
    check_finite(scored[0])
    return scores_by_item(suite, prompting.template, rows, scored, shared=shared)


def joined_scores(parts: Sequence[SuiteScores]) -> SuiteScores:
    """The scores of a suite from all its parts, to the bit those that one scoring gives."""
    logp = parts[0].logp.copy()
    for part in parts[1:]:
        logp += part.logp
    return dataclasses.replace(parts[0], logp=logp, greedy=np.logical_and.reduce([part.greedy for part in parts]))


def parts_of(suite: Suite) -> list[tuple[int, int]]:
    """The parts that a suite's scoring is cut into: by the number of its items alone."""
    count = max(1, -(-len(suite) // PIECE))
    return [(number, count) for number in range(count)]


def _read(rows: Sequence[Row]) -> list[Row]:
    """The rows without their last token, which is predicted and never read."""
    return [dataclasses.replace(row, ids=row.ids[:-1]) for row in rows]


def check_finite(logp: np.ndarray) -> None:
    """Refuse scores that are NaN or infinite, which mean broken weights or an overflow.

    Raises:
        TaxlensError: with the number of such scores.
    """
    bad = int((~np.isfinite(logp)).sum())
    if bad:
        rows = [("scores", f"{bad} of {len(logp)} are NaN or infinite")]
        raise TaxlensError(explain("the model gives no usable log-probabilities.", rows, "dtype: float32"))


def _check_distinct(suite: Suite, rows: Sequence[Row]) -> None:
    seen: dict[tuple[int, tuple[int, ...]], int] = {}
    for row in rows:
        twin = seen.setdefault((row.item, row.ids), row.choice)
        if twin != row.choice:
            item = suite.items[row.item]
            where = [
                ("suite", suite.name),
                ("item", repr(item.id)),
                ("choices", f"{item.choices[twin]!r} and {item.choices[row.choice]!r}"),
            ]
            fix = "tell the choices apart by more than white space or normalised characters."
            raise ItemError(explain("two choices of an item become the same tokens.", where, fix))


def scores_by_item(
    suite: Suite,
    template: str,
    rows: Sequence[Row],
    scored: tuple[np.ndarray, np.ndarray],
    *,
    shared: bool,
) -> SuiteScores:
    """Scores of rows, put together item by item.

    Args:
        suite: the items.
        template: that the rows are in.
        rows: one a choice, item after item.
        scored: log-probability [rows] and whether greedy decoding would say it [rows].
        shared: whether choices shared the computation of their prompt.
    """
    kept = sorted({row.item for row in rows})
    place = {item: n for n, item in enumerate(kept)}
    items = [suite.items[i] for i in kept]
    shape = (len(items), max(len(item.choices) for item in items))
    logp, greedy = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    n_bytes, n_tokens = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        at = place[row.item], row.choice
        logp[at], greedy[at] = scored[0][number], scored[1][number]
        n_bytes[at] = len(suite.items[row.item].choices[row.choice].encode("utf-8"))
        n_tokens[at] = len(row.ids) - row.start
    return SuiteScores(
        suite=suite.name,
        template=template,
        items=tuple(item.id for item in items),
        groups=np.array([item.group for item in items], dtype=object),
        logp=logp,
        gold=np.array([item.gold for item in items], dtype=np.int64),
        n_bytes=n_bytes,
        n_tokens=n_tokens,
        greedy=greedy,
        shared=shared,
        right=_right(items, shape) if any(item.also_right for item in items) else None,
    )


def _right(items: Sequence[Item], shape: tuple[int, int]) -> np.ndarray:
    right = np.zeros(shape, dtype=bool)
    for row, item in enumerate(items):
        right[row, list(item.right)] = True
    return right

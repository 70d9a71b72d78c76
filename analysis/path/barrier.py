"""Is the straight path reliable? Plain perplexity between base and aligned, and the barrier it crosses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.items.tokens import Row
from taxlens.analysis.path.gradient_passes import score_shard, shard_of
from taxlens.core.errors import explain

if TYPE_CHECKING:
    from taxlens.activations.items.items import Item, Suite
    from taxlens.analysis.weights.path_weights import Walk

LIMIT = 0.25
"""Barrier above which figures are marked and ranking is refused: a quarter above the chord."""

TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where perplexity is taken."""

TEXTS = 64
"""Most texts that perplexity is taken over."""


@dataclass(frozen=True, slots=True, eq=False)
class Walkability:
    """Perplexity along the path.

    Args:
        times: points on the path.
        perplexity: exp of the mean nats per token there, float64 [times].
        n_texts, n_tokens: what it was taken over.
    """

    times: np.ndarray
    perplexity: np.ndarray
    n_texts: int
    n_tokens: int

    @property
    def chord(self) -> np.ndarray:
        """The straight line between the ends' perplexities, [times]."""
        return self.perplexity[0] + self.times * (self.perplexity[-1] - self.perplexity[0])

    @property
    def barrier(self) -> float:
        """Largest excess of perplexity over the chord, as a share of it; 0 where it never rises above."""
        return float(np.max(self.perplexity / self.chord - 1, initial=0.0))

    @property
    def fit(self) -> bool:
        """Whether the barrier is within `LIMIT`."""
        return self.barrier <= LIMIT

    def rows(self) -> list[tuple[float, float, float]]:
        """(t, perplexity, chord) at every time."""
        return list(zip(self.times.tolist(), self.perplexity.tolist(), self.chord.tolist()))

    def refusal(self) -> str:
        """Why ranking is refused, in words."""
        worst = float(self.times[np.argmax(self.perplexity / self.chord)])
        rows = [("barrier", f"{self.barrier:.1%} at t = {worst:g}"), ("limit", f"{LIMIT:.0%}")]
        fix = "walk intermediate checkpoints (a list of aligned), or ask with anyway=True."
        return explain(
            "perplexity rises too far along the straight path from base to aligned: effects of single parts are unreliable.",
            rows,
            fix,
        )


def walkability(path: Walk, tokenizer: Any, suites: Sequence[Suite], *, batch_tokens: int = 1024) -> Walkability:
    """Return plain perplexity along the path, over at most `TEXTS` texts: texts, or prompts with their gold choice.

    Args:
        path: the walked pair.
        tokenizer: its tokenizer.
        suites: where the texts come from, drawn evenly.
        batch_tokens: most padded tokens in a batch.
    """
    items = [item for suite in suites for item in suite.items]
    kept = items[:: max(1, -(-len(items) // TEXTS))]
    rows = [row for number, item in enumerate(kept) if (row := _row(number, item, tokenizer)) is not None]
    if not rows:
        return Walkability(np.array([0.0, 1.0]), np.ones(2), 0, 0)
    shard = shard_of(path.model, rows, batch_tokens=batch_tokens)
    nats = np.array([-score_shard(path.to(t), shard).sum() / shard.n_tokens for t in TIMES])
    return Walkability(np.array(TIMES), np.exp(nats), len(rows), shard.n_tokens)


def _row(number: int, item: Item, tokenizer: Any) -> Row | None:
    gold = item.choices[item.gold] if item.choices and item.gold is not None else ""
    text = item.text if item.text is not None else f"{item.context(item.gold or 0)}{gold}"
    ids = tuple(int(i) for i in tokenizer.encode(text))
    return Row(number, -1, ids, 1, "text") if len(ids) > 1 else None

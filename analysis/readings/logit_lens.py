"""The logit lens: what each layer's stream would answer if the model ended there, in both models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from taxlens.activations.items.batches import Piece, packed, pad
from taxlens.activations.items.gold import check_one_right
from taxlens.activations.items.items import Suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.readings.reading_tables import LOGIT_LENS
from taxlens.analysis.scoring.logits import LOGIT_BUDGET, head_logits, target_log_probabilities
from taxlens.analysis.scoring.metrics import item_metrics
from taxlens.core.errors import ItemError, SelfCheckError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.stats.intervals import mean_interval

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

TOLERANCE = 1e-3
"""Largest difference, relative to the final stream's norm, between it and what the lens makes of the last layer."""


@dataclass(frozen=True, slots=True, repr=False)
class LogitLens(Result):
    """What both models would answer after each layer, with intervals.

    Args:
        frame: the table [rows, columns of `LOGIT_LENS`].
    """

    figure: ClassVar[str] = "logit_lens"

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each model, layer and metric."""
        return self.frame

    def __repr__(self) -> str:
        rows = self.frame[(self.frame["metric"] == "probability") & (self.frame["model"] == "difference")]
        at = rows.loc[rows["value"].idxmax()]
        return (
            f"LogitLens({', '.join(dict.fromkeys(self.frame['suite']))}, {rows['layer'].nunique()} layers, largest "
            f"difference {at['value'] * 100:+.1f} points at layer {int(at['layer'])})"
        )


def logit_lens(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    *,
    template: str = "plain",
    items: int | str = 200,
    bootstrap: int = 2000,
    seed: int = 0,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> LogitLens:
    """Return the probability of the right answer that the stream after each layer gives, in both models.

    The stream after a layer goes through the model's final norm and output head as if no layer followed. At the last
    layer this is the model itself; that is checked. A low value in the middle does not show that the answer is
    absent there: it may stand in a form that the head does not read.

    Args:
        pair: the two checkpoints.
        suites: one suite or several; items without choices are passed over.
        template: "plain" or "chat", each model in its own prompt.
        items: most items a suite, spread over its groups, or "all".
        bootstrap: draws of the group bootstrap.
        seed: of the items and the bootstrap.
        batch_tokens: most padded tokens in a batch.
        progress: told of every batch.

    Raises:
        ItemError: no item has choices.
        SelfCheckError: the lens at the last layer is not what the model computes.

    Example:
        >>> logit_lens(pair, facts).plot()                               # doctest: +SKIP

    References: nostalgebraist 2020, interpreting GPT: the logit lens; Belrose et al., arXiv 2303.08112.
    """
    frames = []
    for whole in [suites] if isinstance(suites, Suite) else suites:
        suite = at_most(whole, items, seed=seed)
        asked = [item for item in suite.items if item.choices]
        if not asked:
            raise ItemError(explain("no item of the suite has choices to score.", [("suite", suite.name)]))
        kept = replace(suite, items=tuple(asked))
        found = {
            name: lens_scores(model, as_asked(pair, model, template).rows(kept), batch_tokens, progress)
            for name, model in (("base", pair.base), ("aligned", pair.aligned))
        }
        frames += _rows(kept, template, found, bootstrap, seed)
    return LogitLens(pd.DataFrame(frames, columns=list(LOGIT_LENS.columns)))


def lens_scores(
    model: LoadedModel, rows: Sequence[Row], batch_tokens: int = 4096, progress: Progress = SILENT
) -> np.ndarray:
    """Return the log-probability of each row's choice after each layer, float64 [layers, rows] in nats.

    Args:
        model: one model of a pair.
        rows: token rows with a choice, as `Prompting.rows` gives them.
        batch_tokens: most padded tokens in a batch.
        progress: told of every batch.

    Raises:
        SelfCheckError: the lens at the last layer is not what the model computes.
    """
    depth = model.anatomy.n_layers
    vocabulary = model.model.config.get_text_config().vocab_size
    most = max(1, LOGIT_BUDGET // vocabulary // depth)
    pieces = [Piece(len(row.ids) - 1, asked=len(row.ids) - row.start) for row in rows]
    found = np.zeros((depth, len(rows)))
    with progress.task("logit lens", total=len(rows), unit="rows") as task:
        for batch in packed(pieces, batch_tokens=batch_tokens, most_asked=most):
            chosen = [replace(rows[i], ids=rows[i].ids[:-1]) for i in batch]
            places = [(b, p) for b, i in enumerate(batch) for p in range(rows[i].start - 1, len(rows[i].ids) - 1)]
            targets = [token for i in batch for token in rows[i].ids[rows[i].start :]]
            with torch.no_grad(), _every_layer(model, places) as read:
                logits = head_logits(model, *pad(chosen, 0), torch.tensor(places), read=read)
            values, _ = target_log_probabilities(logits, range(depth * len(places)), targets * depth)
            owner = np.array([batch[b] for b, _ in places])
            for layer, part in enumerate(values.numpy().reshape(depth, len(places))):
                found[layer] += np.bincount(owner, part, len(rows))
            task.advance(len(batch))
    return found


@contextmanager
def _every_layer(model: LoadedModel, places: Sequence[tuple[int, int]]) -> Iterator[Any]:
    """Inside the block, yield a function from the final stream [n, d] to that of every layer [layers * n, d], normed."""
    role = model.anatomy.role("final_norm")
    norm = model.model.get_submodule(role.name) if role is not None else torch.nn.Identity()
    where = torch.tensor(places)
    streams: list[torch.Tensor] = []

    def keep(_block: Any, _args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        at = where.to(hidden.device)
        streams.append(hidden[at[:, 0], at[:, 1]])

    def read(final: torch.Tensor) -> torch.Tensor:
        normed = [norm(stream.to(final.device)) for stream in streams]
        gap = float((normed[-1] - final).float().norm() / final.float().norm().clamp_min(1e-30))
        if not gap <= TOLERANCE:
            rows = [("model", model.source), ("relative difference", f"{gap:.2g}"), ("at most", TOLERANCE)]
            raise SelfCheckError(explain("the last layer's stream is not what the output head reads.", rows))
        return torch.cat([*normed[:-1], final])

    with ExitStack() as stack:
        for block in model.anatomy.blocks:
            stack.callback(block.register_forward_hook(keep).remove)
        yield read


def _rows(suite: Suite, template: str, found: dict[str, np.ndarray], draws: int, seed: int) -> list[dict[str, Any]]:
    """Return the rows of one suite: each model's mean by layer, and the paired difference."""
    check_one_right(suite)
    gold = np.array([item.gold for item in suite.items])
    width = [len(item.choices) for item in suite.items]
    place = [(n, c) for n, size in enumerate(width) for c in range(size)]
    by_layer: dict[str, list[dict[str, np.ndarray]]] = {}
    for model, scores in found.items():
        by_layer[model] = []
        for layer in scores:
            logp = np.full((len(gold), max(width)), np.nan)
            logp[tuple(np.array(place).T)] = layer
            by_layer[model].append(item_metrics(logp, gold, metrics=("probability", "margin")))
    rows = []
    for layer in range(len(by_layer["base"])):
        for metric in ("probability", "margin"):
            base, aligned = (by_layer[model][layer][metric] for model in ("base", "aligned"))
            for model, values in (("base", base), ("aligned", aligned), ("difference", base - aligned)):
                mean = mean_interval(values, suite.groups, draws=draws, seed=seed)
                rows.append({
                    "suite": suite.name, "template": template, "model": model, "layer": layer, "metric": metric,
                    "value": mean.value, "low": mean.low, "high": mean.high, "n_items": len(gold),
                    "n_groups": len(set(suite.groups)),
                })  # fmt: skip
    return rows

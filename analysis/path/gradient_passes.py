"""One gradient: every row's score differentiated at the model's present weights, by unit, item and token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.batches import Piece, packed
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import length_class, network
from taxlens.analysis.path.contraction import Batch, Contraction, Tally
from taxlens.analysis.scoring.logits import head_logits
from taxlens.core.errors import TaxlensError, explain

RowScore = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits [asked, vocabulary], target tokens [asked], number in the shard [asked]) -> a score for each position."""

LOGITS = 1 << 24
"""Most logits of one batch (64 MB in float32; the backward pass needs a few times that)."""


BLOCK = 1 << 22
"""Logits whose exponentials are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A padded batch of distinct inputs; inputs that several rows share are read once.

    Args:
        ids, mask, positions: int64 [inputs, width].
        asked: input and place of each position whose next token is scored, int64 [asked, 2].
        lanes: for each backward pass: (row of each input, rows being the shard's; the shard's size where an input
            has no further row), (row, target token and token number of each asked position it scores, and its
            place among `asked`).
        tokens: for each lane, token number of each position, int64 [inputs * width].
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    asked: torch.Tensor
    lanes: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], ...]
    tokens: tuple[torch.Tensor, ...]

    def logits(self, model: Any) -> torch.Tensor:
        """Logits at the asked positions [asked, vocabulary] (see `scoring.logits.head_logits`)."""
        return head_logits(model, self.ids, self.mask, self.positions, self.asked)


@dataclass(frozen=True, slots=True, eq=False)
class ItemShard:
    """Rows that are differentiated together, and the batches they are read in.

    Args:
        rows: (item, choice) rows; the last token of each is predicted and never read.
        offsets: number of each row's first token, int64 [rows + 1].
        bundles: the batches.
        names: ids of the suite's items, for errors.
    """

    rows: tuple[Row, ...]
    offsets: np.ndarray
    bundles: tuple[Bundle, ...]
    names: tuple[str, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens read, all rows together."""
        return int(self.offsets[-1])


def shard_of(model: Any, rows: Sequence[Row], *, batch_tokens: int, names: Sequence[str] = ()) -> ItemShard:
    """Return rows with their batches: inputs of like length together, rows with one input sharing its forward pass.

    Args:
        model: what will read them: its vocabulary, and where its positions depend on the length.
        rows: choice rows.
        batch_tokens: most padded tokens of a batch.
        names: ids of the suite's items, for errors.
    """
    offsets = np.concatenate([[0], np.cumsum([len(row.ids) - 1 for row in rows])])
    inputs: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        inputs.setdefault(row.ids[:-1], []).append(number)
    order = sorted(inputs.items(), key=lambda pair: -len(pair[1]))
    of, vocabulary = length_class(model), int(network(model).config.get_text_config().vocab_size)
    wanted = [sum(len(rows[m].ids) - rows[m].start for m in members) for _, members in order]
    pieces = [Piece(len(ids), asked=n, kind=of(len(ids))) for (ids, _), n in zip(order, wanted, strict=True)]
    batches = packed(pieces, batch_tokens=batch_tokens, most_asked=LOGITS // vocabulary)
    groups = [[order[i] for i in batch] for batch in batches]
    bundles = tuple(_bundle(group, rows, offsets) for group in groups)
    return ItemShard(tuple(rows), offsets, bundles, tuple(names))


def _bundle(group: Sequence[tuple[tuple[int, ...], list[int]]], rows: Sequence[Row], offsets: np.ndarray) -> Bundle:
    width = max(len(ids) for ids, _ in group)
    ids = torch.zeros((len(group), width), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for number, (tokens, _) in enumerate(group):
        ids[number, : len(tokens)] = torch.tensor(tokens)
        mask[number, : len(tokens)] = 1
    places: dict[tuple[int, int], int] = {}
    lanes, numbers = [], []
    for lane in range(max(len(members) for _, members in group)):
        owner = torch.full((len(group),), len(rows), dtype=torch.int64)
        token = torch.full((len(group), width), int(offsets[-1]), dtype=torch.int64)
        scored: list[tuple[int, int, int, int]] = []
        for number, (tokens, members) in enumerate(group):
            if lane >= len(members):
                continue
            index = members[lane]
            owner[number] = index
            token[number, : len(tokens)] = torch.arange(len(tokens)) + int(offsets[index])
            for place in range(rows[index].start - 1, len(tokens)):
                at = places.setdefault((number, place), len(places))
                scored.append((index, rows[index].ids[place + 1], int(offsets[index]) + place, at))
        columns = torch.tensor(scored, dtype=torch.int64).T
        lanes.append((owner, *columns))
        numbers.append(token.reshape(-1))
    lanes = [(owner, torch.stack([row, target]), token, at) for owner, row, target, token, at in lanes]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Bundle(ids, mask, positions, torch.tensor(list(places)), tuple(lanes), tuple(numbers))


def log_probability(logits: torch.Tensor, targets: torch.Tensor, _tokens: torch.Tensor) -> torch.Tensor:
    """The default score of a position: log-probability of its token, nats."""
    return _TargetLogProbability.apply(logits, targets)


class _TargetLogProbability(torch.autograd.Function):
    """Log-probability of one token a row; forward and backward hold one further array of the logits' size at most.

    Left to autograd, gather and logsumexp hold five.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = max(1, BLOCK // logits.shape[1])
        total = torch.cat([torch.logsumexp(part, dim=-1) for part in logits.split(rows)])
        ctx.save_for_backward(logits, targets, total)
        return logits.gather(1, targets[:, None])[:, 0] - total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, total = ctx.saved_tensors
        given = gradients[0][:, None]
        slope = (logits - total[:, None]).exp_().mul_(-given)
        return slope.scatter_add_(1, targets[:, None], given.to(slope.dtype)), None


def _picked(logits: torch.Tensor, at: torch.Tensor, bundle: Bundle) -> torch.Tensor:
    """Logits that a lane scores: all of them as they are where there is one lane, whose places are in order."""
    return logits if len(bundle.lanes) == 1 else logits[at]


def score_shard(model: Any, shard: ItemShard, *, score: RowScore = log_probability) -> np.ndarray:
    """Scores of a shard's rows by plain forward passes, float64 [rows]."""
    scores = torch.zeros(len(shard.rows), dtype=torch.float64, device=model.get_input_embeddings().weight.device)
    with torch.no_grad():
        for bundle in shard.bundles:
            logits = bundle.logits(model)
            scores = scores.to(logits.device)
            for _, row_target, token, at in bundle.lanes:
                (row, target), token, at = (x.to(logits.device, non_blocking=True) for x in (row_target, token, at))
                scores.index_add_(0, row, score(_picked(logits, at, bundle), target, token).double())
    return _finite(scores.cpu().numpy(), shard)


def differentiate(
    model: Any,
    shard: ItemShard,
    contraction: Contraction,
    *,
    score: RowScore = log_probability,
    advance: Callable[[int], None] = lambda rows: None,
) -> tuple[Tally, np.ndarray]:
    """One gradient of all rows: derivatives along the weights' change, and the scores themselves [rows].

    Args:
        model: the walked model, its weights where the derivative is wanted.
        shard: the rows.
        contraction: its hooks, open.
        score: what is differentiated at each asked position; a row's score is their sum.
        advance: called with the number of rows done.
    """
    contraction.forget()  # what a pass that ran out of memory has left
    contraction.begin(len(shard.rows), shard.n_tokens)
    for bundle in shard.bundles:
        with torch.enable_grad():
            contraction.batch = placed(bundle, 0)
            logits = bundle.logits(model)
            last = len(bundle.lanes) - 1
            for lane, (_, row_target, token, at) in enumerate(bundle.lanes):
                contraction.batch = placed(bundle, lane)
                device = logits.device
                (row, target), token, at = (x.to(device, non_blocking=True) for x in (row_target, token, at))
                values = score(_picked(logits, at, bundle), target, token)
                torch.autograd.backward(values.sum(), retain_graph=lane < last)
                contraction.scored(row, values.detach())
                advance(len(torch.unique(row_target[0])))
            del logits, values  # and with them the graph
            contraction.forget()
    tally, scores = contraction.finish()
    return tally, _finite(scores, shard)


def placed(bundle: Bundle, lane: int) -> Batch:
    """Where the positions of a batch go in one backward pass: rows and tokens of the shard, by lane."""
    owner, (row, _), token, at = bundle.lanes[lane]
    size = len(bundle.asked)
    # asked positions of other lanes have no gradient in this one: they may go to the spare row
    rows = torch.full((size,), -1, dtype=torch.int64)
    tokens = torch.full((size,), -1, dtype=torch.int64)
    rows[at], tokens[at] = row, token
    return Batch(owner, bundle.tokens[lane], rows, tokens, bundle.ids.shape[1])


def _finite(scores: np.ndarray, shard: ItemShard) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        row = shard.rows[bad[0]]
        item = repr(shard.names[row.item]) if shard.names else row.item
        rows = [("scores", f"{len(bad)} of {len(scores)}"), ("first", f"item {item}, choice {row.choice}")]
        raise TaxlensError(explain("a choice's score is not finite.", rows, "dtype: float32, or drop the item."))
    return scores

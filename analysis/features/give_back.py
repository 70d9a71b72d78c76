"""What a changed stream is worth: a suite's rows scored with something put into, or taken out of, the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from taxlens.activations.hooks.hooks import reading, replacing
from taxlens.activations.hooks.sites import Address
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.features.change_codes import Span, least_squares, span_of
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.training.activation_stream import OUTLYING
from taxlens.analysis.path.adaptive_quadrature import loss_sign
from taxlens.analysis.path.chain_rule import ScoreMetric, as_metric, values_of
from taxlens.analysis.path.gradient_passes import ItemShard, log_probability, score_shard, shard_of
from taxlens.analysis.path.shard_walk import choices_of
from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

Tensor = torch.Tensor
CHUNK = 256


@dataclass(slots=True, eq=False)
class SuiteStreams:
    """Some items of a suite with both models' streams at one address, every distinct input once.

    Args:
        pair: the two checkpoints.
        suite: the items, all with choices.
        address: where.
        shard: their rows and batches.
        base, aligned: the streams, [positions, d], batch after batch, padding included.
        read: positions that are read: no padding, no BOS token, no high norm; bool [positions].
        real: positions that are no padding; bool [positions].
        item: item of each position, counted within the suite, int64 [positions].
        place: place of each position in its row; ids: its token.
        scores: model name to the rows' scores as the model is [rows].
    """

    pair: ModelPair
    suite: Suite
    address: Address
    shard: ItemShard
    base: Tensor
    aligned: Tensor
    read: Tensor
    real: Tensor
    item: np.ndarray
    place: np.ndarray
    ids: np.ndarray
    scores: Mapping[str, np.ndarray]

    @property
    def moved(self) -> Tensor:
        """Base minus aligned at every position, zero at those that are not read: what would give the base back."""
        return (self.base - self.aligned) * self.read[:, None]

    def scored(self, model: str, stream: Tensor) -> np.ndarray:
        """Scores of the rows under a model with its stream at the address replaced, [rows].

        Args:
            model: "base" or "aligned".
            stream: [positions, d].
        """
        loaded: LoadedModel = getattr(self.pair, model)
        passes = 0

        def change(x: Tensor) -> Tensor:
            nonlocal passes
            start = self.starts[passes % len(self.shard.bundles)]
            passes += 1
            return stream[start : start + x.shape[0] * x.shape[1]].reshape(x.shape).to(x)

        with torch.no_grad(), replacing(loaded.model, loaded.anatomy, self.address, change):
            return score_shard(loaded.model, self.shard)

    def values(self, scores: np.ndarray, metric: str | ScoreMetric) -> np.ndarray:
        """A metric of each item from the rows' scores, [items]."""
        choices = choices_of(self.shard, self.suite)
        table = choices.table(scores)
        return values_of(metric, table, choices.gold, choices.n_bytes)

    def tax(self, metric: str | ScoreMetric) -> np.ndarray:
        """The measured tax of each item [items]; positive is loss."""
        lost = self.values(self.scores["base"], metric) - self.values(self.scores["aligned"], metric)
        return loss_sign(metric) * lost

    def returned(self, given: Tensor, metrics: Mapping[str, str | ScoreMetric], side: str) -> dict[str, np.ndarray]:
        """What comes back of each item's tax, by metric [items].

        Args:
            given: what is added to the aligned stream, or taken off the base's, [positions, d].
            metrics: by name.
            side: "restored" (added to aligned) or "removed" (taken from base: what then is lost).
        """
        model, stream = ("aligned", self.aligned + given) if side == "restored" else ("base", self.base - given)
        scores = self.scored(model, stream)
        sign = 1.0 if side == "restored" else -1.0
        return {
            name: sign * loss_sign(one) * (self.values(scores, one) - self.values(self.scores[model], one))
            for name, one in metrics.items()
        }

    def gradient(self, metric: str | ScoreMetric) -> Tensor:
        """Gradient of the sum of the items' metric by the aligned model's stream, [positions, d]; positive is gain.

        Args:
            metric: one that has a gradient by the scores.
        """
        choices = choices_of(self.shard, self.suite)
        table = choices.table(self.scores["aligned"])
        slope = as_metric(metric).gradient
        if slope is None:
            raise UsageError(explain("the metric has no gradient by the scores.", [("metric", metric)], "probability"))
        weights = torch.as_tensor(np.nan_to_num(slope(table, choices.gold))[choices.item, choices.choice])
        out = torch.zeros_like(self.aligned)
        loaded = self.pair.aligned
        for bundle, start in zip(self.shard.bundles, self.starts):
            leaf = self.aligned[start : start + bundle.ids.numel()].clone().to(loaded.device).requires_grad_(True)
            with (
                torch.enable_grad(),
                replacing(
                    loaded.model, loaded.anatomy, self.address, lambda x, leaf=leaf: leaf.reshape(x.shape).to(x.dtype)
                ),
            ):
                logits = bundle.logits(loaded.model)
                total = torch.zeros((), device=logits.device)
                for _, (row, target), token, at in bundle.lanes:
                    values = log_probability(logits[at.to(logits.device)], target.to(logits.device), token)
                    total = total + (values * weights[row].to(values)).sum()
                total.backward()
            assert leaf.grad is not None
            out[start : start + len(leaf)] = leaf.grad.cpu()
        return out * self.read[:, None]

    @property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([bundle.ids.numel() for bundle in self.shard.bundles])])


def suite_streams(
    pair: ModelPair, suite: Suite, address: Address, *, template: str = "plain", batch_tokens: int = 2048
) -> SuiteStreams:
    """Run a suite's rows once through both models and keep their streams at an address.

    Args:
        pair: the two checkpoints.
        suite: items; those without choices are passed over.
        address: site and layer.
        template: "plain" or "chat" (the aligned model's, as the weight path reads both).
        batch_tokens: most padded tokens of a batch.
    """
    tokenizer = pair.base.tokenizer
    kept = suite.subset([n for n, item in enumerate(suite.items) if item.choices])
    rows = one_prompting(pair, kept, template).rows(kept)
    shard = shard_of(pair.base, rows, batch_tokens=batch_tokens, names=[i.id for i in kept.items])
    streams, scores = {}, {}
    for name, loaded in pair.models():
        held: list[Tensor] = []
        with reading(loaded.model, loaded.anatomy, [address], lambda _a, x, held=held: held.append(x.detach().cpu())):
            scores[name] = score_shard(loaded.model, shard)
        streams[name] = torch.cat([x.reshape(-1, x.shape[-1]) for x in held])
    real = torch.cat([bundle.mask.reshape(-1).bool() for bundle in shard.bundles])
    ids = torch.cat([bundle.ids.reshape(-1) for bundle in shard.bundles])
    bos = tokenizer.bos_token_id
    norms = [streams[name].float().norm(dim=1) for name in ("base", "aligned")]
    limit = OUTLYING * max(float(norm[real].median()) for norm in norms)
    read = real & (torch.maximum(*norms) <= limit) & (ids != (-1 if bos is None else int(bos)))
    owner = np.concatenate([np.repeat(bundle.lanes[0][0].numpy(), bundle.ids.shape[1]) for bundle in shard.bundles])
    item = np.array([*(row.item for row in shard.rows), -1])[owner]
    place = torch.cat([bundle.positions.reshape(-1) for bundle in shard.bundles]).numpy()
    return SuiteStreams(
        pair, kept, address, shard, streams["base"], streams["aligned"], read, real, item, place, ids.numpy(), scores
    )


@dataclass(slots=True, eq=False)
class ChangeCodes:
    """The change of the stream coded on a dictionary, at the positions that are read.

    Args:
        at: the positions [read].
        spans: decoders in use, piece by piece.
        codes: base minus aligned on them, piece by piece [positions, used * copies].
        width: latents of the dictionary.
    """

    at: Tensor
    spans: Sequence[Span]
    codes: Sequence[Tensor]
    width: int

    def written(self, latents: Sequence[int] | np.ndarray | None, like: Tensor) -> Tensor:
        """What some latents (None: all) would give back, [positions, d], zero where nothing is read."""
        chosen = torch.zeros(self.width + 1, dtype=torch.bool)
        chosen[
            torch.arange(self.width) if latents is None else torch.as_tensor(np.asarray(latents, dtype=np.int64))
        ] = True
        out = torch.zeros_like(like)
        start = 0
        for span, codes in zip(self.spans, self.codes):
            on = chosen[span.latents].repeat(1, span.copies).to(codes)
            rows = torch.einsum("tu,tud->td", codes * on, span.directions.to(codes.dtype))
            out[self.at[start : start + len(rows)]] = rows.to(out)
            start += len(rows)
        return out

    def mass(self) -> np.ndarray:
        """Squared length of what each latent writes, summed over positions, float64 [width]."""
        return self._summed(lambda span, codes: codes.square() * span.directions.to(codes.dtype).square().sum(-1))

    def count(self) -> np.ndarray:
        """Positions at which each latent is in use, float64 [width]."""
        return self._summed(lambda span, codes: torch.ones_like(codes)) / max(
            1, self.spans[0].copies if self.spans else 1
        )

    def _summed(self, each) -> np.ndarray:
        out = torch.zeros(self.width + 1, dtype=torch.float64)
        for span, codes in zip(self.spans, self.codes):
            values = each(span, codes).double().reshape(len(codes), span.copies, -1).sum(1)
            out.index_add_(0, span.latents.reshape(-1), values.reshape(-1))
        return out[:-1].numpy()


def coded_change(streams: SuiteStreams, dictionary: Dictionary) -> ChangeCodes:
    """Code base minus aligned on the decoders in use, by least squares, at the positions that are read."""
    at = streams.read.nonzero()[:, 0]
    spans, codes = [], []
    for piece in at.split(CHUNK):
        base, aligned = streams.base[piece].float(), streams.aligned[piece].float()
        spans.append(span_of(dictionary, base, aligned))
        codes.append(least_squares(spans[-1], base - aligned))
    return ChangeCodes(at, spans, codes, dictionary.width)

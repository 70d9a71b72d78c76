"""The account at a cut: the stream moves from the base's to the aligned model's, the weights above stay aligned.

The tax is what the weights above explain on the base's stream, and what the stream explains under the aligned
weights. The second part is integrated along the straight line between the two streams, with the machinery of the
weight path; that line is what an intervention at the cut walks, so it is the causal check of the account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from taxlens.activations.hooks.hooks import replacing
from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.account_run import LOG_ODDS
from taxlens.analysis.features.feature_tables import FEATURES_CUT
from taxlens.analysis.features.give_back import SuiteStreams, suite_streams
from taxlens.analysis.features.latent_effects import LatentReader
from taxlens.analysis.features.stream_tap import StreamStates
from taxlens.analysis.path.adaptive_quadrature import Walker, change, loss_sign
from taxlens.analysis.path.chain_rule import ScoreMetric
from taxlens.analysis.path.contraction import Tally
from taxlens.analysis.path.gradient_passes import log_probability
from taxlens.analysis.path.shard_walk import choices_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.features.feature_account import FeatureAccount

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CutAccount:
    """One suite's account at the cut.

    Args:
        suite, template, dictionary: names.
        stream, upper, integrated: by metric, means over items.
        effects: by metric, mean effect of each latent [width].
        agreement: by metric, correlation with the weight path's effects over latents in use.
        nodes: on the line.
    """

    suite: str
    template: str
    dictionary: str
    stream: Mapping[str, float]
    upper: Mapping[str, float]
    integrated: Mapping[str, float]
    effects: Mapping[str, np.ndarray]
    agreement: Mapping[str, float]
    nodes: int

    def to_frame(self) -> pd.DataFrame:
        """Rows of features_cut.csv."""
        return FEATURES_CUT.frame(
            (
                self.suite, self.template, m, self.dictionary, self.stream[m], self.upper[m], self.integrated[m],
                (self.stream[m] - self.integrated[m]) / abs(self.stream[m]) if self.stream[m] else np.nan,
                self.agreement[m], self.nodes,
            )
            for m in self.stream
        )  # fmt: skip


def cut_account(
    pair: ModelPair, suite: Suite, account: FeatureAccount, *, tolerance: float = 0.01, max_gradients: int = 7
) -> CutAccount:
    """Return the account of a suite's stream at the dictionary's address, along the line between the two streams.

    Args:
        pair: the two checkpoints.
        suite: a suite of the account.
        account: whose dictionary, template, reading and metrics are taken.
        tolerance, max_gradients: as for the weight path.
    """

    found = account.suites[suite.name]
    dictionary = account.dictionary
    own = suite.subset(found.places.tolist())
    streams = suite_streams(pair, own, Address(dictionary.site, dictionary.layer), template=account.template)
    metrics: dict[str, str | ScoreMetric] = {m: LOG_ODDS if m == "log_odds" else m for m in account.metrics}
    bos = pair.base.tokenizer.bos_token_id
    reader = LatentReader(dictionary, account.reading, metrics, bos=-1 if bos is None else int(bos), keep_tokens=0)
    line = _Line(streams)
    start = streams.scored("aligned", streams.base)
    choices = choices_of(streams.shard, streams.suite)
    functions = {name: one for name, one in metrics.items() if isinstance(one, ScoreMetric)}
    walker = Walker(
        line.gradient, (start, streams.scores["aligned"]), choices, tuple(metrics), functions, tolerance, max_gradients
    )
    walked = walker.run()
    items = reader.account(line.seen, walked, choices, streams.shard)
    stream, upper, integrated, effects, agreement = {}, {}, {}, {}, {}
    used = found.tokens_on > 0
    for number, (name, metric) in enumerate(metrics.items()):
        stream[name] = float(np.mean(-loss_sign(metric) * change(walked.path, metric)))
        upper[name] = float(found.taxes[name].mean()) - stream[name]
        column = np.zeros(dictionary.width)
        for one in items.values():
            np.add.at(column, one.latents, one.values[number])
        effects[name] = column / len(items)
        rest = sum(one.error[number] + one.excluded[number] for one in items.values()) / len(items)
        integrated[name] = float(effects[name].sum() + rest)
        both = np.stack([effects[name][used], found.mean(name)[used]])
        agreement[name] = float(np.corrcoef(both)[0, 1]) if (both.std(1) > 0).all() else float("nan")
    return CutAccount(
        suite.name, account.template, account.name, stream, upper, integrated, effects, agreement, walked.gradients
    )


class _Line:
    """The straight line between the streams, base's at t = 0, with gradients at any point of it."""

    def __init__(self, streams: SuiteStreams) -> None:
        self.streams = streams
        self.seen = StreamStates()
        for t in (0.0, 1.0):
            self._keep(t)

    def gradient(self, t: float) -> tuple[Tally, np.ndarray]:
        """Derivative of every row's score along the line at t [rows, 1], and the scores [rows]."""
        streams, loaded = self.streams, self.streams.pair.aligned
        shard = streams.shard
        self._keep(t)
        held = torch.zeros(shard.n_tokens + 1, streams.base.shape[1], dtype=streams.base.dtype)
        scores = torch.zeros(len(shard.rows), dtype=torch.float64)
        for bundle, start in zip(shard.bundles, streams.starts):
            part = slice(int(start), int(start) + bundle.ids.numel())
            leaf = torch.lerp(streams.base[part], streams.aligned[part], t).to(loaded.device).requires_grad_(True)
            with (
                torch.enable_grad(),
                replacing(
                    loaded.model, loaded.anatomy, streams.address, lambda x, leaf=leaf: leaf.reshape(x.shape).to(x)
                ),
            ):
                logits = bundle.logits(loaded.model)
                for lane, (_, (row, target), token, at) in enumerate(bundle.lanes):
                    device = logits.device
                    values = log_probability(logits[at.to(device)], target.to(device), token.to(device))
                    more = lane < len(bundle.lanes) - 1
                    (slope,) = torch.autograd.grad(values.sum(), leaf, retain_graph=more)
                    held.index_add_(0, bundle.tokens[lane], slope.to(held))
                    scores.index_add_(0, row, values.detach().double().cpu())
        self.seen.gradients[t] = held[:-1]
        moved = self.seen.states[1.0] - self.seen.states[0.0]
        owner = torch.as_tensor(np.repeat(np.arange(len(shard.rows)), np.diff(shard.offsets)))
        along = torch.zeros(len(shard.rows), 1, dtype=torch.float64)
        along.index_add_(0, owner, (held[:-1] * moved).double().sum(1, keepdim=True))
        return Tally({"component": along}), scores.numpy()

    def _keep(self, t: float) -> None:
        """The stream at t in the order of the rows' tokens."""
        streams = self.streams
        rows = torch.zeros(streams.shard.n_tokens + 1, streams.base.shape[1], dtype=streams.base.dtype)
        for bundle, start in zip(streams.shard.bundles, streams.starts):
            part = slice(int(start), int(start) + bundle.ids.numel())
            now = torch.lerp(streams.base[part], streams.aligned[part], t)
            for tokens in bundle.tokens:
                rows[tokens] = now
        self.seen.states[t] = rows[:-1]

"""TripleReading a unit: what a singular triple writes and reads, which triples are one cluster, how stable a ranking is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.directions.naming import output_matrix
from taxlens.analysis.path.gradient_passes import shard_of
from taxlens.analysis.weights.units import Difference, difference_of
from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.intervals import group_weights

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.path.attribution import Attribution

CLUSTER = 0.05
"""Relative gap of neighbouring singular values below which their triples are not identifiable one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class TripleReading:
    """What one singular triple of a weight change does.

    The signs of u and v are arbitrary together: where v.x is negative the triple writes -u.

    Args:
        unit: its name.
        sigma: its singular value.
        writes: columns token, text, logit: the tokens that u moves most through the unembedding, up and down; empty
            where the module does not write to the residual stream.
        reads: columns item, token, text, value: the tokens of the items with the most extreme v.x in the aligned
            model, both ends.
    """

    unit: str
    sigma: float
    writes: pd.DataFrame
    reads: pd.DataFrame


def read_triples(
    pair: ModelPair,
    units: Sequence[str],
    suite: Suite,
    *,
    top: int = 8,
    template: str = "plain",
    batch_tokens: int = 1024,
) -> list[TripleReading]:
    """Return what several singular triples write and read, from one pass over the suite."""
    difference = difference_of(pair)
    places = [_triple(difference, unit) for unit in units]
    roles = {role.name: role.role for role in difference.anatomy.modules}
    vectors = [(module, difference.triples(module)[2][number]) for module, number in places]
    found = []
    for unit, (module, number), reads in zip(
        units, places, _reads(pair, vectors, suite, top, template, batch_tokens), strict=True
    ):
        u, s, _ = difference.triples(module)
        writes = roles[module] in ("o", "down")
        table = _writes(pair, u[:, number], top) if writes else pd.DataFrame(columns=_WRITES)
        found.append(TripleReading(unit, float(s[number]), table, reads))
    return found


def clusters(pair: ModelPair, module: str, *, gap: float = CLUSTER) -> np.ndarray:
    """Cluster number of each singular triple of a module: neighbours within `gap` of each other are one cluster.

    Within a cluster only the span and the summed effect mean something; single triples may rotate into each other.

    Args:
        pair: the two checkpoints.
        module: dotted name of a weight.
        gap: relative gap of neighbouring values that parts clusters.

    Returns:
        int64 [triples], ascending from 0.
    """
    s = difference_of(pair).triples(module)[1].double().cpu().numpy()
    if not len(s):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([[0], np.cumsum(s[1:] < s[:-1] * (1 - gap))]).astype(np.int64)


def stability(
    found: Attribution, suite: str, metric: str, *, level: str = "singular", top: int = 10, draws: int = 1000
) -> pd.DataFrame:
    """How a unit's rank and sign hold when groups of items are drawn again.

    Args:
        found: an attribution.
        suite, metric, level: which of its effects.
        top: size of the leading set.
        draws: group-bootstrap draws.

    Returns:
        Columns component, effect, same_sign (share of draws with the sign of the effect), in_top (share of draws
        in which it is among the `top` largest by |effect|), for units that are ever among them.
    """
    names, values = found.effects(suite, metric, level)
    weights = group_weights(found.suites[suite].groups, draws=draws, seed=found.seed)
    means = (weights / weights.sum(axis=1, keepdims=True)) @ values
    effect = values.mean(axis=0)
    leading = np.argsort(-np.abs(means), axis=1, kind="stable")[:, :top]
    chosen = np.bincount(leading.ravel(), minlength=len(names)) / draws
    same = (np.sign(means) == np.sign(effect)).mean(axis=0)
    table = pd.DataFrame({"component": names, "effect": effect, "same_sign": same, "in_top": chosen})
    order = np.argsort(-np.abs(effect), kind="stable")
    return table.iloc[order].query("in_top > 0").reset_index(drop=True)


def agreement_of_seeds(found: Sequence[Attribution], suite: str, metric: str) -> pd.DataFrame:
    """Effects of components over aligned models of one recipe (seeds): mean, spread, share with the mean's sign.

    Returns:
        Columns component, mean, deviation, same_sign.
    """
    names = found[0].effects(suite, metric)[0]
    means = np.stack([one.effects(suite, metric)[1].mean(axis=0) for one in found])
    same = (np.sign(means) == np.sign(means.mean(axis=0))).mean(axis=0)
    spread = means.std(axis=0, ddof=1) if len(found) > 1 else np.full(len(names), np.nan)
    return pd.DataFrame({"component": names, "mean": means.mean(axis=0), "deviation": spread, "same_sign": same})


_WRITES = ["token", "text", "logit"]


def _triple(difference: Difference, unit: str) -> tuple[str, int]:
    found = difference.units("singular").get(unit)
    if found is None or found.parts[0].triple is None:
        fix = "name one of the singular level, such as 3.mlp.down.s0."
        raise UsageError(explain(f"{unit!r} is no singular triple of this pair.", (), fix))
    return found.parts[0].module, found.parts[0].triple


def _writes(pair: ModelPair, u: torch.Tensor, top: int) -> pd.DataFrame:
    matrix, gain = output_matrix(pair.aligned)
    logits = torch.as_tensor(matrix @ (gain * u.float().cpu().numpy()))
    order = torch.argsort(logits, descending=True)
    chosen = [*order[:top].tolist(), *order[-top:].tolist()]
    words = [pair.aligned.tokenizer.decode([i]) for i in chosen]
    return pd.DataFrame({"token": chosen, "text": words, "logit": logits[chosen].numpy()})


def _reads(
    pair: ModelPair,
    vectors: Sequence[tuple[str, torch.Tensor]],
    suite: Suite,
    top: int,
    template: str,
    batch_tokens: int,
) -> list[pd.DataFrame]:
    """For each (module, v): the tokens with the most extreme v.x, both ends, each distinct input read once."""
    model, tokenizer = pair.aligned.model, pair.aligned.tokenizer
    rows = one_prompting(pair, suite, template).rows(suite)
    shard = shard_of(model, rows, batch_tokens=batch_tokens)
    values = np.zeros((shard.n_tokens + 1, len(vectors)))
    seen = np.zeros((1, len(vectors)))

    def keep(column: int, v: torch.Tensor) -> Any:
        def hook(_module: Any, inputs: tuple[Any, ...]) -> None:
            found = inputs[0].detach().float() @ v.to(inputs[0].device).float()
            seen[:, column] = found.reshape(-1).double().cpu().numpy()

        return hook

    handles = [
        model.get_submodule(module).register_forward_pre_hook(keep(column, v))
        for column, (module, v) in enumerate(vectors)
    ]
    try:
        with torch.no_grad():
            for bundle in shard.bundles:
                seen = np.zeros((bundle.ids.numel(), len(vectors)))
                bundle.logits(model)
                values[bundle.tokens[0].numpy()] = seen
    finally:
        for handle in handles:
            handle.remove()
    first = {lane[0][i].item() for b in shard.bundles for lane in b.lanes[:1] for i in range(len(lane[0]))}
    where = [(n, place) for n, row in enumerate(rows) if n in first for place in range(len(row.ids) - 1)]
    at = np.array([shard.offsets[n] + place for n, place in where], dtype=np.int64)
    found = []
    for column in range(len(vectors)):
        order = np.argsort(-values[at, column], kind="stable")
        chosen = dict.fromkeys([*order[:top].tolist(), *order[-top:].tolist()])
        cells = [(rows[where[i][0]], where[i][1], values[at[i], column]) for i in chosen]
        table = [(suite.items[row.item].id, place, tokenizer.decode([row.ids[place]]), v) for row, place, v in cells]
        found.append(pd.DataFrame(table, columns=["item", "token", "text", "value"]))
    return found

"""Whether a kept capability still runs through the same components: each one silenced in base and in aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from taxlens.activations.hooks.paired_forward import replaced_output
from taxlens.analysis.state.upper_layers import Half, probability
from taxlens.analysis.state.verdict import Evidence
from taxlens.core.stats.intervals import ratio_interval

if TYPE_CHECKING:
    import numpy as np

    from taxlens.analysis.state.evidence import Bench

KINDS = ("attn", "mlp")
"""Parts of a block that are silenced."""

CARRIES = 0.1
"""Probability of the right choice that a component must cost in one of the models to be compared."""


def component_use(bench: Bench, layers: Sequence[int]) -> dict[int, list[Evidence]]:
    """What silencing each block's parts costs aligned over what it costs the base: "U attn" and "U mlp" by layer.

    A part is silenced by giving its mean output over the suite's tokens everywhere. 1: both models use it alike;
    near 0: the base's capability ran through it and aligned's does not; above 1: more of it runs there than did. The
    denominator is at least `CARRIES`, so that a part that the base did not use cannot look infinitely more used.

    Args:
        bench: both models on one suite.
        layers: blocks to look at.

    Returns:
        Layer to evidence; parts that neither model uses are left out.
    """
    found: dict[int, list[Evidence]] = {}
    for layer in layers:
        found[layer] = []
        for kind in KINDS:
            base, aligned = (_cost(half, layer, kind) for half in (bench.base, bench.aligned))
            if max(base.mean(), aligned.mean()) < CARRIES:
                continue
            missing = max(0.0, CARRIES - float(base.mean()))
            share = ratio_interval(aligned, base + missing, bench.groups, draws=bench.draws, seed=bench.seed)
            found[layer].append(Evidence(f"U {kind}", share.value, share.low, share.high))
    return found


def _cost(half: Half, layer: int, kind: str) -> np.ndarray:
    """Probability of the right choice that each item loses when a part gives its mean output, float64 [items]."""
    anatomy = half.loaded.anatomy
    module = (anatomy.attentions if kind == "attn" else anatomy.mlps)[layer]
    table, seen = half.table, []

    def keep(output: torch.Tensor) -> torch.Tensor:
        real = table.real(len(seen))
        seen.append((output[real.to(output.device)].sum(dim=0), int(real.sum())))
        return output

    with replaced_output(module, keep):
        half.scores()
    mean = torch.stack([one for one, _ in seen]).sum(dim=0) / sum(count for _, count in seen)

    def silence(output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :1], mean.to(output).expand_as(output[:, 1:])], dim=1)

    with replaced_output(module, silence):
        silenced = half.scores()
    return probability(table, half.logp) - probability(table, silenced)

"""Tokens that only one of the two models has: they enter along the path through the softmax's denominator alone.

A vocabulary that was lengthened changes every probability even where no weight of the other tokens has moved: the new
logits share in the denominator. Their rows have no counterpart to move from, so along the path they stay what they are
and count with weight w in the sum over the vocabulary: w = t where alignment added them, 1 - t where it took them away.
At both ends the models are the measured ones; the derivative by w is the row `added_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from taxlens.analysis.weights.units import Unit

if TYPE_CHECKING:
    from taxlens.analysis.path.contraction import Contraction
    from taxlens.analysis.weights.path_weights import Walk

UNIT = Unit("added_tokens", "added_tokens", -1, "unembed", ())
"""What the tokens do that only one model has; it holds no weights of the pair's difference."""

ABSENT = 1e-30
"""Weight of tokens that are not there: 69 nats below presence, and its logarithm is finite."""


@contextmanager
def weighted_tokens(path: Walk, contraction: Contraction) -> Iterator[None]:
    """While open, the logits of tokens that only one model has count by how far the path has come.

    Args:
        path: the walked pair; nothing happens where both have the same vocabulary.
        contraction: where the derivative is tallied.
    """
    if path.rows is None:
        yield
        return
    rows = path.rows

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        logits = output.logits if output.logits.dtype == torch.float64 else output.logits.float()
        share = path.t if path.grows else 1.0 - path.t
        weight = torch.full((*logits.shape[:-1], 1), max(share, ABSENT), dtype=logits.dtype, device=logits.device)
        if torch.is_grad_enabled() and contraction.batch is not None:
            weight.requires_grad_(True)
            sign = 1.0 if path.grows else -1.0
            weight.register_hook(lambda g: contraction.add(UNIT.name, sign * g.reshape(-1, 1), asked=True))
        output.logits = torch.cat([logits[..., :rows], logits[..., rows:] + weight.log()], dim=-1)
        return output

    handle = path.model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()

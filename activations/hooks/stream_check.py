"""Whether the parts of a model are what they are taken for: its streams are its hidden states, and its parts add up to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from taxlens.activations.hooks.hooks import reading
from taxlens.activations.hooks.sites import Address
from taxlens.activations.models.anatomy import Anatomy


def hidden_gaps(loaded: Any, batch: tuple[torch.Tensor, ...], read: Mapping[Address, torch.Tensor]) -> dict[str, float]:
    """Largest difference between what was read and the model's own `hidden_states`, by site of the stream, relative.

    Args:
        loaded: a loaded model.
        batch: ids, mask, positions.
        read: activations by address.
    """
    states = _states(loaded.model, batch)
    real = batch[1].bool()
    found = []
    for first in (0, 1):  # some families leave the embedding out
        worst: dict[str, float] = {}
        for address, mine in read.items():
            place = {"resid_pre": address.layer, "resid_post": address.layer + 1}.get(address.site, -1) - first
            if not 0 <= place < len(states) - 1:  # the last one stands after the final norm
                continue
            here = real.to(mine.device)
            gap = _gap(mine[here], states[place].to(mine.device)[here])
            worst[address.site] = max(worst.get(address.site, 0.0), gap)
        found.append(worst)
    return min(found, key=lambda gaps: max(gaps.values(), default=0.0))


def stream_gaps(loaded: Any, batch: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """How far the parts are from adding up: resid_pre + attn_out + mlp_out = resid_post, by site, relative.

    Where attention and feed-forward part follow each other, resid_pre + attn_out = resid_mid too.
    """
    parts: Anatomy = loaded.anatomy
    real, worst = batch[1].bool(), {}
    for layer in range(parts.n_layers):
        names = ["resid_pre", "resid_post", "attn_out"]
        names += ["mlp_out"] if parts.mlps[layer] is not None else []
        names += ["resid_mid"] if not parts.parallel and parts.mlps[layer] is not None else []
        kept: dict[str, torch.Tensor] = {}
        asked = [Address(name, layer) for name in names]
        with (
            torch.no_grad(),
            reading(loaded.model, parts, asked, lambda a, x, kept=kept: kept.__setitem__(a.site, x.detach().clone())),
        ):
            _run(loaded.model, batch)
        x = {name: value[real.to(value.device)].float() for name, value in kept.items()}
        pairs = {"mlp_out": (x["resid_pre"] + x["attn_out"] + x.get("mlp_out", 0.0), x["resid_post"])}
        if "resid_mid" in x:
            pairs["resid_mid"] = (x["resid_pre"] + x["attn_out"], x["resid_mid"])
        for name, (one, two) in pairs.items():
            for site in ("attn_out", name) if name in names else ("attn_out",):
                worst[site] = max(worst.get(site, 0.0), _gap(one, two))
    return worst


def _run(model: Any, batch: tuple[torch.Tensor, ...]) -> None:
    ids, mask, positions = batch
    model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)


def _states(model: Any, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    ids, mask, positions = batch
    with torch.no_grad():
        found = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
        ).hidden_states
    return tuple(found or ())


def _gap(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one.float() - two.float()).abs().max()) / (float(two.float().abs().max()) or 1.0)

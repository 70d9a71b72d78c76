"""Proof, before a byte is written, that what the hooks read is what the model computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from taxlens.activations.hooks.hooks import reading, replacing, run_logits
from taxlens.activations.hooks.sites import Address, bridge_name
from taxlens.activations.hooks.stream_check import hidden_gaps, stream_gaps
from taxlens.activations.items.batches import pad
from taxlens.activations.items.tokens import Row, pad_token
from taxlens.activations.models.lengths import length_class
from taxlens.activations.models.loading import LoadedModel
from taxlens.core.errors import SelfCheckError, explain

ULPS = 4
"""Units in the last place by which a GPU's kernels may differ for the same numbers at another address."""

# Sums over padded and unpadded shapes are taken in another order: equal up to rounding, relative to the site's scale.
ROUNDING = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
# The bridge splits fused query-key-value matrices; the halves multiply in another order than the whole.
FUSED = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
# Families that the bridge computes by the same operations, to the bit.
EXACT = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of the self-check.

    Args:
        model: "base" or "aligned".
        site: the site.
        check: "padding", "bridge", "noop" or "zeroing".
        value: what was measured: the largest difference, relative to the site's largest activation for "padding",
            absolute for the others.
        limit: the most that passes ("zeroing": the least).
        passed: whether it did.
    """

    model: str
    site: str
    check: str
    value: float
    limit: float
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain values for a manifest."""
        return asdict(self)


def self_check(
    loaded: LoadedModel, rows: Sequence[Row], asked: Sequence[Address], *, model: str = "base"
) -> tuple[Check, ...]:
    """Check one model at every requested site on a few rows, and return what was found.

    Four checks: padded equals unpadded (both sides of padding); TransformerBridge equals the raw model (where it does
    not know the architecture: the model's own hidden states, and that the parts add up to the stream); reading changes
    nothing; zeroing a site changes the logits.

    Args:
        loaded: the model.
        rows: a few rows of different lengths (of those, as many as may share a batch).
        asked: the addresses that will be captured.
        model: what to call it.

    Raises:
        SelfCheckError: if any check fails, with every failed one.

    References:
        TransformerLens issues 1609 (one left pad moves gpt2's loss from 4.50 to 13.59) and 1624.
    """
    of = length_class(loaded)
    rows = [row for row in rows if of(len(row.ids)) == of(len(rows[0].ids))]
    batch = _inputs(loaded, rows)
    plain = run_logits(loaded.model, *batch)
    read, logits = _read(loaded, batch, asked)
    sites = tuple(dict.fromkeys(address.site for address in asked))
    change = float((plain - logits).abs().max())
    limit = _rounding(plain)
    found = [Check(model, site, "noop", change, limit, change <= limit) for site in sites]
    found += _padding(loaded, rows, asked, read, model)
    found += _bridge(loaded, batch, asked, read, model)
    found += _zeroing(loaded, batch, asked, read, plain, model)
    if failed := [check for check in found if not check.passed]:
        lines = [(f"{c.model} {c.site}", f"{c.check}: {c.value:.3g}, allowed {c.limit:.3g}") for c in failed]
        fix = "report it with the model's config; nothing was written."
        raise SelfCheckError(explain("activations are not what the model computes.", lines, fix))
    return tuple(found)


def _rounding(values: torch.Tensor) -> float:
    """By how much two runs of the same pass may differ: nothing on a CPU; a GPU may choose another kernel."""
    device = values.device.type
    return 0.0 if device == "cpu" else ULPS * torch.finfo(values.dtype).eps * float(values.abs().max())


def _inputs(
    loaded: LoadedModel, rows: Sequence[Row], side: str = "right"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, mask, positions = pad(rows, pad_token(loaded.tokenizer), side=side)
    return ids.to(loaded.device), mask.to(loaded.device), positions.to(loaded.device)


def _read(
    loaded: LoadedModel, batch: tuple[torch.Tensor, ...], asked: Sequence[Address]
) -> tuple[dict[Address, torch.Tensor], torch.Tensor]:
    kept: dict[Address, torch.Tensor] = {}

    def keep(address: Address, x: torch.Tensor) -> None:
        kept[address] = x.detach().clone()

    with reading(loaded.model, loaded.anatomy, asked, keep):
        logits = run_logits(loaded.model, *batch)
    return kept, logits


def _padding(
    loaded: LoadedModel, rows: list[Row], asked: Sequence[Address], read: dict[Address, torch.Tensor], model: str
) -> list[Check]:
    left, _ = _read(loaded, _inputs(loaded, rows, "left"), asked)
    worst: dict[str, float] = {}
    for number, row in enumerate(rows):
        alone, _ = _read(loaded, _inputs(loaded, [row]), asked)
        n = len(row.ids)
        for address in asked:
            truth = alone[address][0].float()
            scale = float(truth.abs().max()) or 1.0
            for padded in (read[address][number, :n], left[address][number, -n:]):
                gap = float((padded.float() - truth).abs().max()) / scale
                worst[address.site] = max(worst.get(address.site, 0.0), gap)
    limit = ROUNDING[loaded.dtype]
    return [Check(model, site, "padding", gap, limit, gap <= limit) for site, gap in worst.items()]


def _bridge(
    loaded: LoadedModel,
    batch: tuple[torch.Tensor, ...],
    asked: Sequence[Address],
    read: dict[Address, torch.Tensor],
    model: str,
) -> list[Check]:
    ids, mask, positions = batch
    names = {bridge_name(address): address for address in asked}
    try:
        with torch.no_grad():
            _, cache = loaded.bridge().run_with_cache(
                ids, attention_mask=mask, position_ids=positions, names_filter=lambda name: name in names
            )
        missing = names.keys() - cache.keys()
    except Exception as error:  # whatever another library does with an architecture that it does not know
        missing = {f"{type(error).__name__}"}
    if missing:
        return plain_checks(loaded, batch, asked, read, model)
    worst: dict[str, float] = {}
    limits: dict[str, float] = {}
    real = mask.bool()
    fused = FUSED[loaded.dtype] if loaded.anatomy.qkv != "separate" or loaded.anatomy.model_type not in EXACT else 0.0
    fused = max(fused, ULPS * torch.finfo(loaded.model.dtype).eps * (loaded.device.type != "cpu"))
    for name, address in names.items():
        here = real.to(read[address].device)
        mine = read[address][here].float()
        theirs = cache[name].to(here.device).reshape(read[address].shape)[here].float()
        worst[address.site] = max(worst.get(address.site, 0.0), float((mine - theirs).abs().max()))
        limits[address.site] = max(limits.get(address.site, 0.0), fused * float(mine.abs().max()))
    return [Check(model, s, "bridge", gap, limits[s], gap <= limits[s]) for s, gap in worst.items()]


def plain_checks(
    loaded: LoadedModel,
    batch: tuple[torch.Tensor, ...],
    asked: Sequence[Address],
    read: dict[Address, torch.Tensor],
    model: str,
) -> list[Check]:
    """The same without TransformerLens: streams against the model's hidden states, parts against the streams they join."""
    limit = FUSED[loaded.dtype]
    worst = stream_gaps(loaded, batch)
    worst |= {site: max(gap, worst.get(site, 0.0)) for site, gap in hidden_gaps(loaded, batch, read).items()}
    sites = dict.fromkeys(address.site for address in asked)
    return [Check(model, s, "stream", worst[s], limit, worst[s] <= limit) for s in sites if s in worst]


def _zeroing(
    loaded: LoadedModel,
    batch: tuple[torch.Tensor, ...],
    asked: Sequence[Address],
    read: dict[Address, torch.Tensor],
    plain: torch.Tensor,
    model: str,
) -> list[Check]:
    found = []
    real = batch[1].bool()
    for site in dict.fromkeys(address.site for address in asked):
        layers = [address.layer for address in asked if address.site == site]
        for layer in dict.fromkeys((layers[0], layers[-1])):
            address = Address(site, layer)
            with replacing(loaded.model, loaded.anatomy, address, torch.zeros_like):
                gap = float((run_logits(loaded.model, *batch) - plain)[real].abs().max())
            silent = not bool(
                read[address][real.to(read[address].device)].any()
            )  # a site that is zero already cannot change anything
            found.append(Check(model, site, "zeroing", gap, 0.0, gap > 0.0 or silent))
    return found

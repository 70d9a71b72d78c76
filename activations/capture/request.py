"""A capture's whole request, resolved and checked: sites, layers, dtype, shards, and what they weigh."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from taxlens.activations.capture.row_plan import RowPlan, make_plan
from taxlens.activations.hooks.sites import Address, addresses, check_layers, check_sites, site_shape
from taxlens.activations.items.items import Suite
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.compatibility import tokenizer_sha256
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import ModelPair
from taxlens.activations.models.prompts import usable_templates
from taxlens.activations.store.shard import STORED
from taxlens.core.artifacts import sha256_text
from taxlens.core.errors import UsageError, explain, one_of

SHARD_BYTES = 256 * 2**20
CHECK_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides a store's bytes.

    Args:
        plan: its rows.
        sites: site -> shape of one row.
        layers: layers of every site, rising.
        dtype: "float32", "float16" or "bfloat16".
        batch_tokens: most padded tokens a batch.
        shard_bytes: aim for the size of a shard, both models together.
        compress: None or "gzip".
        identity: what two captures must share to be one store.
    """

    plan: RowPlan
    sites: dict[str, tuple[int, ...]]
    layers: tuple[int, ...]
    dtype: str
    batch_tokens: int
    shard_bytes: int
    compress: str | None
    identity: dict[str, Any]

    @property
    def asked(self) -> tuple[Address, ...]:
        """Every address, site after site."""
        return addresses(tuple(self.sites), self.layers)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one model."""
        values = sum(prod(shape) for shape in self.sites.values()) * len(self.layers)
        return values * STORED[self.dtype].itemsize

    @property
    def total_bytes(self) -> int:
        """Bytes of all activations of both models."""
        return 2 * self.row_bytes * self.plan.n_rows

    def shards(self) -> list[tuple[int, int]]:
        """Return (first reading, stop) of every shard; an item is never split."""
        starts = self.plan.first_reading
        return [(int(starts[first]), int(starts[stop])) for first, stop in self._shard_items()]

    def part(self, number: int, count: int) -> tuple[int, int]:
        """Return the (first item, stop) of one of `count` parts, counted from 1: whole shards, about equally many.

        Parts end where shards end, so that parts captured apart hold the same bytes as one capture.

        Raises:
            UsageError: if there is no such part, or there are fewer shards than parts.
        """
        if not 1 <= number <= count:
            got = [("got", f"{number} of {count}"), ("must be", f"1 to {count}, of {count}")]
            raise UsageError(explain("there is no such part of the capture.", got, f"1/{max(count, 1)}"))
        shards = self._shard_items()
        if count > len(shards):
            sizes = [("parts", count), ("shards", f"{len(shards)}, of at most {self.shard_bytes} bytes")]
            fewer = f"at most {len(shards)} parts" if len(shards) > 1 else "the whole capture at once"
            smaller = max(1, self.total_bytes // count)
            fix = f"{fewer}, or capture.shard_bytes={smaller} (the same for every part)."
            raise UsageError(explain("the capture has fewer shards than parts.", sizes, fix))
        first, stop = (len(shards) * n // count for n in (number - 1, number))
        return shards[first][0], shards[stop - 1][1]

    def _shard_items(self) -> list[tuple[int, int]]:
        """The (first item, stop) of every shard."""
        rows = max(1, self.shard_bytes // (2 * self.row_bytes))
        starts = self.plan.first_row[self.plan.first_reading]
        found, first = [], 0
        for item in range(self.plan.n_items):
            if item > first and starts[item + 1] - starts[first] > rows:
                found.append((first, item))
                first = item
        return [*found, (first, self.plan.n_items)]

    def check_rows(self, model: str) -> list[Row]:
        """Return a few of the rows, of different lengths and not long, for the self-check."""
        rows = [getattr(reading, model) for reading in self.plan.readings]
        by_length = sorted(rows, key=lambda row: len(row.ids))
        picked = [by_length[0], by_length[len(by_length) // 2], by_length[-1]]
        limits = [max(1, min(len(by_length[0].ids), CHECK_TOKENS // 2)), CHECK_TOKENS // 2 + 8, CHECK_TOKENS]
        cut = [replace(row, ids=row.ids[:limit]) for row, limit in zip(picked, limits, strict=True)]
        if len({len(row.ids) for row in cut}) == 1 and len(cut[0].ids) > 1:
            cut[0] = replace(cut[0], ids=cut[0].ids[: (len(cut[0].ids) + 1) // 2])
        return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """What a capture may be told: which activations are kept, and how they are stored.

    Args:
        sites: names from `taxlens.activations.hooks.site_registry.SITES`.
        layers: "all" or indices.
        positions, templates: as `taxlens.activations.capture.row_plan.make_plan`.
        dtype: how activations are stored: "float32", "bfloat16" or "float16".
        batch_tokens: most padded tokens a batch; halved, and recorded, when memory runs out.
        seed: draws the wrong choices that stand against gold.
        items: (first, stop) of all items, for one part of a capture (`taxlens.activations.capture.merge`).
        part: (number from 1, of how many) instead: cut where shards end, so that the merged parts have the bytes of one
            capture.
        compress: None, or "gzip".
        shard_bytes: aim for a shard's size; two models' parts of it are the memory that writing takes.
    """

    sites: str | Iterable[str] = ("resid_post",)
    layers: str | int | Iterable[int] = "all"
    positions: str = "last"
    templates: Sequence[str] = ("plain",)
    dtype: str = "float32"
    batch_tokens: int = 4096
    seed: int = 0
    items: tuple[int, int] | None = None
    part: tuple[int, int] | None = None
    compress: str | None = None
    shard_bytes: int = SHARD_BYTES


def resolve(pair: ModelPair, suites: Suite | Sequence[Suite], **options: Any) -> Request:
    """Return a request with every name checked and every row planned.

    Args:
        pair: the two models.
        suites: what they read.
        options: see `CaptureOptions`.

    Raises:
        UsageError: if a site, layer, dtype, template, position, filter or size makes no sense for this pair.
    """
    o = CaptureOptions(**options)
    suites = (suites,) if isinstance(suites, Suite) else tuple(suites)
    templates = usable_templates(pair, (o.templates,) if isinstance(o.templates, str) else tuple(o.templates))
    parts = pair.base.anatomy
    named = check_sites(o.sites, parts)
    one_of(o.dtype, tuple(STORED), what="dtype")
    if o.compress is not None:
        one_of(o.compress, ("gzip",), what="compression (or leave it out)")
    for name, value in (("batch_tokens", o.batch_tokens), ("shard_bytes", o.shard_bytes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(explain(f"{name} must be a whole number of at least 1.", [("got", repr(value))]))
    if o.part is not None and o.items is not None:
        raise UsageError(
            explain("a range of items and a part were both given.", [("items", o.items), ("part", o.part)])
        )
    plan = make_plan(pair, suites, templates=templates, positions=o.positions, seed=o.seed, items=o.items)
    held = check_layers(o.layers, parts.n_layers)
    shapes = {site: site_shape(site, parts) for site in named}
    identity = {
        "pair": {name: _identity(loaded) for name, loaded in pair.models()},
        "suites": [{"name": suite.name, "items": len(suite), "sha256": suite.sha256} for suite in suites],
        "items": list(o.items) if o.items else None,
        "templates": list(templates),
        "positions": o.positions,
        "seed": o.seed,
        "sites": list(named),
        "layers": list(held),
        "dtype": o.dtype,
        "compress": o.compress,
        "batch_tokens": o.batch_tokens,
        "shard_bytes": o.shard_bytes,
        "software": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "h5py")},
    }
    whole = Request(plan, shapes, held, o.dtype, o.batch_tokens, o.shard_bytes, o.compress, identity)
    if o.part is None:
        return whole
    wanted = whole.part(*o.part)
    if wanted == (0, plan.n_items):
        return whole
    plan = make_plan(pair, suites, templates=templates, positions=o.positions, seed=o.seed, items=wanted)
    return replace(whole, plan=plan, identity={**identity, "items": list(wanted)})


def _identity(loaded: LoadedModel) -> dict[str, str]:
    return {
        "weights": loaded.sha256,
        "tokenizer": tokenizer_sha256(loaded.tokenizer),
        "template": sha256_text(loaded.chat_template) if loaded.chat_template else "none",
        "dtype": loaded.dtype,
        "device": loaded.device.type,
        "attention": str(loaded.model.config._attn_implementation),
    }

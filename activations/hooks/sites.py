"""Named places in the network: where each is read in a Hugging Face model, its shape, and the bridge's name for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from taxlens.activations.hooks.site_registry import SITES, site_names
from taxlens.activations.models.anatomy import Anatomy
from taxlens.core.errors import UsageError, explain, one_of


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A site in one layer, written `resid_post.7`."""

    site: str
    layer: int

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"


@dataclass(frozen=True, slots=True)
class Tap:
    """Where an address is read: a module, and its input or its output."""

    module: nn.Module
    on_input: bool


def check_sites(sites: str | Iterable[str], parts: Anatomy) -> tuple[str, ...]:
    """Return the requested sites, each once, in the vocabulary's order.

    Raises:
        UsageError: if a name is unknown, none is given, or the model has no such place.
    """
    asked = (sites,) if isinstance(sites, str) else tuple(sites)
    if not asked:
        raise UsageError(explain("no site is asked for.", [("sites", ", ".join(SITES))], "sites: [resid_post]"))
    for site in asked:
        one_of(site, site_names(), what="site")
    lacking = [site for site in asked if parts.parallel and not SITES[site].parallel]
    if lacking:
        rows = [("architecture", f"{parts.model_type} (parallel blocks)"), ("site", lacking[0])]
        raise UsageError(explain(f"this model has no {lacking[0]}.", rows, f"leave {lacking[0]} out."))
    return tuple(site for site in SITES if site in asked)


def check_layers(layers: str | int | Iterable[int], n_layers: int) -> tuple[int, ...]:
    """Return the requested layers in rising order, each once.

    Args:
        layers: "all", one index, or several; negative ones count from the end.
        n_layers: how many blocks the model has.

    Raises:
        UsageError: if a layer is out of range, or not a whole number.
    """
    if isinstance(layers, str):
        one_of(layers, ("all",), what="layers (or a list of indices)")
        return tuple(range(n_layers))
    asked = (layers,) if isinstance(layers, int) else tuple(layers)
    for layer in asked:
        if isinstance(layer, bool) or not isinstance(layer, int) or not -n_layers <= layer < n_layers:
            rows = [("got", repr(layer)), ("must be", f"0 to {n_layers - 1}, or all")]
            raise UsageError(explain("layer out of range.", rows, "layers: all"))
    if not asked:
        raise UsageError(explain("no layer is asked for.", [("must be", f"0 to {n_layers - 1}")], "layers: all"))
    return tuple(sorted({layer % n_layers for layer in asked}))


def addresses(sites: Sequence[str], layers: Sequence[int]) -> tuple[Address, ...]:
    """Return every (site, layer), site after site."""
    return tuple(Address(site, layer) for site in sites for layer in layers)


def site_shape(site: str, parts: Anatomy) -> tuple[int, ...]:
    """Return the shape of one row at a site: (d_model,), (n_heads, d_head) or (d_mlp,)."""
    return {"model": (parts.d_model,), "heads": (parts.n_heads, parts.d_head), "mlp": (parts.d_mlp,)}[SITES[site].shape]


def bridge_name(address: Address) -> str:
    """Return the TransformerBridge's name for an address ("blocks.7.hook_resid_post")."""
    return f"blocks.{address.layer}.{SITES[address.site].bridge}"


def tap(address: Address, parts: Anatomy, model: nn.Module) -> Tap:
    """Return where an address is read in a Hugging Face model.

    `attn_out` and `mlp_out` are what the two parts add to the stream: after the post-norm where the family has
    one. `resid_mid` is what the feed-forward part starts from: the stream before its norm.

    Args:
        address: site and layer.
        parts: the model's anatomy.
        model: the model itself.
    """
    layer, site = address.layer, SITES[address.site]

    def named(role: str) -> nn.Module | None:
        found = parts.role(role, layer) if role else None
        return model.get_submodule(found.name) if found else None

    inner = named(site.inner) if parts.residual_inside else None
    whole = {"block": parts.blocks, "attn": parts.attentions, "mlp": parts.mlps}.get(site.module)
    module = inner or named(site.first) or (whole[layer] if whole is not None else named(site.module))
    return Tap(_must(module, address), on_input=site.on_input)


def _must(module: nn.Module | None, address: Address) -> nn.Module:
    if module is None:
        raise UsageError(explain("this model has no such place.", [("address", str(address))]))
    return module

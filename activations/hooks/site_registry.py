"""Sites: the named places in a block, and all that is known of each. Light: config and figures read it too."""

from __future__ import annotations

from dataclasses import dataclass

from taxlens.core.errors import UsageError, explain


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of a place in a block.

    Args:
        name: its name in stores, tables and configs.
        meaning: what stands there.
        bridge: TransformerBridge's name for it inside a block.
        module: role of the module it is read at ("block", "attn", "mlp", or a role of `Anatomy.role`).
        first: role of a module that is taken instead, where the family has it.
        inner: role that is taken before both, in families whose parts add the stream themselves.
        on_input: whether it is that module's input; else its output.
        shape: what one row is: "model" (d_model), "heads" (heads, d_head) or "mlp" (d_mlp).
        stream: whether it is the whole residual stream there, not what a part adds to it.
        parallel: whether a model with parallel blocks has it.
    """

    name: str
    meaning: str
    bridge: str
    module: str
    first: str = ""
    inner: str = ""
    on_input: bool = False
    shape: str = "model"
    stream: bool = False
    parallel: bool = True


SITES: dict[str, Site] = {}
"""Every site by name, in the order in which a block computes them."""


def register_site(site: Site) -> Site:
    """Make a site known to capture, config and figures.

    Raises:
        UsageError: the name is taken, or the shape is none that stores hold.
    """
    if site.name in SITES:
        raise UsageError(explain("a site of this name is registered already.", [("site", site.name)]))
    if site.shape not in ("model", "heads", "mlp"):
        rows = [("site", site.name), ("shape", site.shape), ("must be", "model, heads or mlp")]
        raise UsageError(explain("a site's rows have no such shape.", rows))
    SITES[site.name] = site
    return site


def site_names() -> tuple[str, ...]:
    """Return the names of all sites."""
    return tuple(SITES)


def stream_sites() -> tuple[str, ...]:
    """Return the sites at which everything below reaches everything above: the whole residual stream."""
    return tuple(name for name, site in SITES.items() if site.stream)


for _site in (
    Site("resid_pre", "the stream before a block", "hook_resid_pre", "block", on_input=True, stream=True),
    Site(
        "resid_mid", "the stream between attention and feed-forward part, before its norm", "hook_resid_mid", "mlp",
        first="pre_mlp", on_input=True, stream=True, parallel=False,
    ),
    Site("resid_post", "the stream after a block", "hook_resid_post", "block", stream=True),
    Site("attn_out", "what attention adds to the stream", "hook_attn_out", "attn", first="post_attn", inner="o"),
    Site("mlp_out", "what the feed-forward part adds to the stream", "hook_mlp_out", "mlp", first="post_mlp", inner="down"),
    Site("head_z", "each head's output before the output projection", "attn.hook_z", "o", on_input=True, shape="heads"),
    Site("mlp_post", "the feed-forward part's neurons", "mlp.hook_post", "down", on_input=True, shape="mlp"),
):  # fmt: skip
    register_site(_site)

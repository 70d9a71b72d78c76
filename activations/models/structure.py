"""An architecture that no table knows, read by structure: its parts must add up to its stream, or it is refused."""

from __future__ import annotations

from typing import Any

import torch

from taxlens.activations.items.out_of_memory import check_memory
from taxlens.activations.models.anatomy import ARCHITECTURES, Anatomy
from taxlens.core.errors import ModelLoadError, explain

LIMIT = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Most by which the parts may miss the stream, as a share of its largest value."""


def check_structure(model: Any, parts: Anatomy) -> str:
    """Check on a few tokens that the parts found add up to the stream, and return a note that says so.

    Blocks must follow each other (what one gives the next one gets), and a block must give what it gets plus what its
    attention and its feed-forward part give.

    Args:
        model: a Hugging Face causal language model.
        parts: what was taken for its parts.

    Returns:
        A note for readers of results; blank for a family of the table.

    Raises:
        ModelLoadError: they do not add up; the families that are served are listed.
    """
    if parts.served:
        return ""
    try:
        worst = _gap(model, parts)
    except Exception as error:
        check_memory(error, what="finding the model's parts")
        raise ModelLoadError(_refused(parts, f"{type(error).__name__}: {str(error)[:120]}")) from error
    if worst > LIMIT[model.dtype]:
        raise ModelLoadError(_refused(parts, f"its parts miss its stream by {worst:.2%}"))
    return (
        f"{parts.model_type} is no family that is tested: its parts were found by structure, and add up to its stream"
    )


def _gap(model: Any, parts: Anatomy) -> float:
    seen: dict[tuple[str, int], torch.Tensor] = {}
    handles = []

    def first(output: Any) -> torch.Tensor:
        return (output[0] if isinstance(output, tuple) else output).detach().float().clone()

    def keep(kind: str, layer: int) -> Any:
        def hook(_module: Any, args: tuple, named: dict[str, Any], output: Any) -> None:
            if kind == "block":
                seen["in", layer] = first(args[0] if args else named["hidden_states"])
            seen[kind, layer] = first(output)

        return hook

    for layer, block in enumerate(parts.blocks):
        ends = [("post_attn", parts.attentions[layer]), ("post_mlp", parts.mlps[layer])]
        found = [("block", block)]
        for role, module in ends:
            norm = parts.role(role, layer)
            found.append((role, model.get_submodule(norm.name) if norm else module))
        handles += [m.register_forward_hook(keep(kind, layer), with_kwargs=True) for kind, m in found if m is not None]
    device = model.get_input_embeddings().weight.device
    ids = torch.randint(0, len(model.get_input_embeddings().weight), (2, 7), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            model(input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    worst = 0.0
    for layer in range(parts.n_layers):
        out = seen["block", layer]
        scale = float(out.abs().max()) or 1.0
        added = [seen[kind, layer].reshape(out.shape) for kind in ("post_attn", "post_mlp") if (kind, layer) in seen]
        gap = out - seen["in", layer] - parts.residual_scale * sum(added)
        worst = max(worst, float(gap.abs().max()) / scale)
        if layer + 1 < parts.n_layers:
            worst = max(worst, float((seen["in", layer + 1] - out).abs().max()) / scale)
    return worst


def _refused(parts: Anatomy, why: str) -> str:
    rows = [("got", parts.model_type), ("self-check", why), ("served", ", ".join(ARCHITECTURES))]
    return explain("this architecture is not served.", rows, "use a causal language model of a served family.")

"""Models that a notebook holds: Hugging Face modules, PEFT models and TransformerLens bridges, taken as they are now."""

from __future__ import annotations

import copy
import hashlib
import warnings
from typing import Any

import torch
from torch import nn

from taxlens.activations.models.anatomy import anatomy
from taxlens.activations.models.chat_templates import default_template
from taxlens.activations.models.loading import DTYPES, LoadedModel, check_finite
from taxlens.activations.models.structure import check_structure
from taxlens.activations.models.token_ids import ids_beyond, refuse_unknown_ids
from taxlens.activations.models.weight_loading import text_part
from taxlens.core.errors import ModelLoadError, UsageError, explain


def is_model(given: Any) -> bool:
    """Whether something is a model in memory, and no name of one."""
    return isinstance(given, nn.Module)


def from_memory(given: nn.Module, tokenizer: Any, *, adapted: bool = True, name: str = "") -> LoadedModel:
    """Return a model in memory, ready to be read; the one that was given is left as it is.

    It gets a module tree of its own on the same tensors (but for an adapter, which is merged on tensors of its own), in
    evaluation mode, with eager attention. Its hash is of what is in memory now: training it on changes what this reads.

    Args:
        given: a Hugging Face causal language model, a PeftModel, or a TransformerBridge.
        tokenizer: its tokenizer.
        adapted: with the adapter that is in it; else what it would be without.
        name: what to call it; by default its class.

    Raises:
        UsageError: no tokenizer.
        ModelLoadError: it is none of these, a bridge whose weights were processed, or weights that are not finite.
    """
    if tokenizer is None:
        rows = [("model", type(given).__name__)]
        raise UsageError(
            explain("a model in memory needs its tokenizer.", rows, "load_pair(model, other, tokenizer=...)")
        )
    model = _plain(given, adapted=adapted)
    dtypes = {v: k for k, v in DTYPES.items()} | {torch.float64: "float64"}
    kind = next(model.parameters()).dtype
    if kind not in dtypes:
        rows = [("model", type(given).__name__), ("dtype", kind)]
        raise ModelLoadError(explain("weights are packed and cannot be compared.", rows, "dequantise the model first."))
    model, note = text_part(model)
    model.config._attn_implementation = "eager"
    model.set_attn_implementation("eager")
    source = name or f"{type(model).__name__} in memory"
    check_finite(model, source)
    read_as = check_structure(model, anatomy(model))
    refuse_unknown_ids(model)
    template, several = default_template(tokenizer)
    notes = (note, read_as, several, ids_beyond(tokenizer, model, source))
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        source=source,
        sha256=memory_sha256(model),
        chat_template=template,
        device=model.get_input_embeddings().weight.device,
        dtype=dtypes[kind],
        notes=tuple(text for text in notes if text),
    )


def memory_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights as they are in memory: names, shapes, dtypes and bytes, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().to("cpu").contiguous()
        digest.update(f"{name}\t{plain.dtype}\t{tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def _plain(given: nn.Module, *, adapted: bool) -> Any:
    """An ordinary model of one's own module tree, on the given one's tensors."""
    if hasattr(given, "original_model"):
        return _from_bridge(given)
    if not hasattr(given, "config") or not hasattr(given, "get_input_embeddings"):
        rows = [("got", type(given).__name__)]
        fix = "a Hugging Face causal language model, a PeftModel or a TransformerBridge."
        raise ModelLoadError(explain("this is no model that can be read.", rows, fix))
    if _has_adapter(given):
        return _from_adapted(given, adapted=adapted)
    return _own_tree(given)


def _own_tree(model: nn.Module) -> Any:
    """A copy of the module tree whose parameters are new objects on the same memory, without gradients or hooks' graphs."""
    memo = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(buffer): buffer.detach() for buffer in model.buffers()}
    twin: Any = copy.deepcopy(model, memo)
    for module in twin.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False
    return twin.eval()


def _has_adapter(model: nn.Module) -> bool:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper
    except ImportError:
        return False
    return any(isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for module in model.modules())


def _from_adapted(given: nn.Module, *, adapted: bool) -> Any:
    """A model with an adapter in it: with the adapter merged, or without it, on tensors of its own where it changes any."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    twin: Any = copy.deepcopy(given).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in twin.modules():
            if isinstance(module, BaseTunerLayer) and module.merged:
                module.unmerge()
        if isinstance(twin, PeftModel):
            plain = twin.merge_and_unload(safe_merge=True) if adapted else twin.unload()
        else:
            plain = twin
            for name, module in list(twin.named_modules()):
                if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                    inner = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
                    parent, _, last = name.rpartition(".")
                    setattr(twin.get_submodule(parent), last, inner)
    apart = plain.get_output_embeddings().weight is not plain.get_input_embeddings().weight
    plain.config.tie_word_embeddings = not apart
    return plain.requires_grad_(False)


def _from_bridge(bridge: Any) -> Any:
    """The Hugging Face model that a TransformerBridge was made of, on the bridge's present weights."""
    if getattr(bridge, "compatibility_mode", False):
        rows = [("got", type(bridge).__name__), ("state", "compatibility mode: its weights are folded")]
        fix = "hand in the bridge before enable_compatibility_mode: two folded models share no coordinates."
        raise ModelLoadError(explain("this bridge's weights were processed.", rows, fix))
    inner = bridge.original_model
    held = {name.replace("._original_component", ""): tensor for name, tensor in inner.state_dict().items()}
    fresh = type(inner)(copy.deepcopy(inner.config))
    wanted = fresh.state_dict().keys()
    missing = sorted(wanted - held.keys())
    if missing:
        rows = [("got", type(bridge).__name__), ("lacks", f"{len(missing)} tensors, first {missing[0]}")]
        raise ModelLoadError(explain("this bridge does not hold its model's weights.", rows, "give the model itself."))
    fresh = fresh.to(next(inner.parameters()).dtype)
    fresh.load_state_dict({name: held[name].detach() for name in wanted}, assign=True)
    fresh.tie_weights()
    return fresh.to(next(inner.parameters()).device).eval().requires_grad_(False)

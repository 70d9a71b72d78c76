"""A PEFT adapter put on a base model that is loaded once: aligned shares every tensor that the adapter leaves."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch

from taxlens.activations.items.out_of_memory import check_memory
from taxlens.activations.models.adapter_files import AdapterFiles, read_adapter
from taxlens.activations.models.chat_templates import default_template
from taxlens.activations.models.checkpoint import checkpoint_directory, first_line
from taxlens.activations.models.loading import LoadedModel, check_finite, load_tokenizer
from taxlens.activations.models.token_ids import ids_beyond, refuse_unknown_ids
from taxlens.activations.models.weight_loading import quiet
from taxlens.core.artifacts import sha256_file
from taxlens.core.errors import CheckError, ModelLoadError, PairMismatchError, explain

AGREEMENT = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest difference of logits between adapter and merged weights, as a share of the largest logit."""


def apply_adapter(base: LoadedModel, adapter: str | Path) -> LoadedModel:
    """Return base + adapter as a model of its own that shares every tensor the adapter does not change.

    The adapter is merged by PEFT on tensors of its own, so that nothing can be written into the base's, and the merged
    weights are checked to compute what PEFT computes with the adapter beside the weights.

    Args:
        base: the model that the adapter was trained on; it is left as it is, to the bit.
        adapter: directory or hub id with adapter_config.json and adapter_model.safetensors.

    Returns:
        The merged model, on the base's device and in its dtype. The tokenizer and the chat template are the
        adapter directory's, where it has them, else the base's.

    Raises:
        ModelLoadError: if the adapter is missing, unreadable, a pickle, not finite, or of a kind that cannot be merged.
        PairMismatchError: if it was made for another base.
        CheckError: if the merged weights compute something else than the adapter.
    """
    directory = checkpoint_directory(adapter)
    files = read_adapter(directory, base.model, base.source)
    merged, notes = _merged(base, files)
    check_finite(merged, str(adapter))
    share_equal(merged, base.model)
    refuse_unknown_ids(merged)
    own = (directory / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(directory) if own else base.tokenizer
    template, note = default_template(tokenizer) if own else (None, "")
    digest = hashlib.sha256(f"{base.sha256}\n{sha256_file(files.weights)}\n".encode()).hexdigest()
    beyond = ids_beyond(tokenizer, merged, directory.name)
    return dataclasses.replace(
        base,
        model=merged.eval().requires_grad_(False),
        tokenizer=tokenizer,
        source=f"{base.source} + {adapter}",
        sha256=digest,
        chat_template=template or base.chat_template,
        notes=tuple(text for text in (*files.notes, *notes, note, beyond) if text),
    )


def share_equal(model: torch.nn.Module, base: torch.nn.Module) -> None:
    """Let a model use the base's own tensor wherever its parameter of the same name is equal to the bit."""
    held = dict(base.named_parameters(remove_duplicate=False))
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        other = held.get(name)
        if other is None or other.shape != parameter.shape or not torch.equal(other, parameter):
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, other)


def _merged(base: LoadedModel, files: AdapterFiles) -> tuple[Any, list[str]]:
    from peft import PeftModel

    twin = copy.deepcopy(base.model)
    tied = base.anatomy.tied
    ids = _probe(base, files)
    try:
        with quiet(), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            if files.rows is not None:
                twin.resize_token_embeddings(files.rows, mean_resizing=False)
            tuned = PeftModel.from_pretrained(twin, str(files.directory)).eval()
            with torch.no_grad():
                wanted = tuned(input_ids=ids, use_cache=False).logits
            _own_weights(tuned)
            merged = tuned.merge_and_unload(safe_merge=True)
            with torch.no_grad():
                got = merged(input_ids=ids, use_cache=False).logits
    except Exception as error:
        check_memory(error, what=f"merging {files.directory}")
        raise _refused(base, files, error) from error
    gap = float((got - wanted).abs().max()) / (float(wanted.abs().max()) or 1.0)
    if gap > AGREEMENT[base.dtype]:
        rows = [
            ("adapter", files.directory),
            ("kind", files.config.get("peft_type")),
            ("logits differ by", f"{gap:.2%}"),
        ]
        fix = "merge it with PEFT, check what it writes, and give the result as pair.aligned."
        raise CheckError(explain("merged into the weights, the adapter computes something else.", rows, fix))
    notes = [_missing(str(warning.message)) for warning in heard]
    apart = merged.get_output_embeddings().weight is not merged.get_input_embeddings().weight
    if tied and apart:
        notes.append("the adapter changes one of the tied embeddings: aligned has an output head of its own")
    merged.config.tie_word_embeddings = not apart
    return merged, [note for note in notes if note]


def _probe(base: LoadedModel, files: AdapterFiles) -> torch.Tensor:
    """Some token ids to compare an adapter and its merged weights on, [2, 12]; tokens that it trains are among them."""
    rows = int(base.model.get_input_embeddings().weight.shape[0])
    ids = torch.randint(0, rows, (2, 12), generator=torch.Generator().manual_seed(0))
    trained = files.config.get("token_indices") or files.config.get("trainable_token_indices") or []
    named = [i for group in trained.values() for i in group] if isinstance(trained, dict) else list(trained)
    ids[0, : min(len(named), 6)] = torch.tensor(named[:6], dtype=ids.dtype)
    return ids.to(base.device)


def _own_weights(tuned: Any) -> None:
    """Give every layer under the adapter a parameter of its own: a tied one would be changed in both its places."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in tuned.modules():
        if isinstance(module, BaseTunerLayer):
            layer = module.get_base_layer()
            for name, parameter in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, torch.nn.Parameter(parameter.detach().clone(), requires_grad=False))


def _missing(warning: str) -> str:
    if "missing adapter keys" not in warning:
        return ""
    count = warning.count("'") // 2
    return f"the adapter's file lacks {count} tensors that its config asks for: they are as PEFT starts them"


def _refused(base: LoadedModel, files: AdapterFiles, error: Exception) -> ModelLoadError | PairMismatchError:
    rows: list[tuple[str, object]] = [("adapter", files.directory), ("kind", files.config.get("peft_type"))]
    if "size mismatch" in str(error):
        line = next(line for line in str(error).splitlines() if "size mismatch" in line)
        rows += [("base", base.source), ("got", line.strip()[:200])]
        fix = "give the base that the adapter was trained on (adapter_config.json names it)."
        return PairMismatchError(explain("this adapter was made for another base.", rows, fix))
    rows.append(("reason", first_line(error)))
    fix = "check adapter_config.json; or merge it with PEFT and give the result as pair.aligned."
    return ModelLoadError(explain("the adapter cannot be merged.", rows, fix))

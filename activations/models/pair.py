"""Two checkpoints of one model, before and after alignment, loaded alike and checked against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from taxlens.activations.models.adapter import apply_adapter
from taxlens.activations.models.chat_templates import Asking, asked_with, asking_notes
from taxlens.activations.models.compatibility import CompatibilityReport, compare
from taxlens.activations.models.in_memory import from_memory, is_model
from taxlens.activations.models.loading import LoadedModel, load_model
from taxlens.activations.models.token_ids import with_ids_of
from taxlens.core.errors import ConfigError, UsageError, explain

MODELS = ("base", "aligned")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ModelPair:
    """A base model and its aligned version: same architecture, depth, width, dtype, attention and vocabulary.

    Args:
        base: before alignment.
        aligned: after it.
        report: what was compared, and what to know before comparing further.
    """

    base: LoadedModel
    aligned: LoadedModel
    report: CompatibilityReport

    def __repr__(self) -> str:
        return f"ModelPair(base={self.base.source}, aligned={self.aligned.source}, {self.report.summary})"

    def models(self) -> tuple[tuple[str, LoadedModel], tuple[str, LoadedModel]]:
        """Return (("base", base), ("aligned", aligned))."""
        return ("base", self.base), ("aligned", self.aligned)


Given = str | Path | nn.Module
"""A model: directory, hub id, or the thing itself."""


def load_pair(
    base: Given,
    aligned: Given | None = None,
    *,
    adapter: str | Path | None = None,
    tokenizer: Any = None,
    asking: Asking | None = None,
    gguf: str | None = None,
    dtype: str = "float32",
    device: str | dict = "auto",
    chat_template: str = "own",
    revision: str | None = None,
) -> ModelPair:
    """Load a base model and its aligned version, and check that they can be compared.

    Both get the same dtype, device and (eager) attention. An adapter is put on the base loaded once: tensors that
    it leaves alone are shared in memory.

    Args:
        base: directory or hub id of the model before alignment; or a model in memory (a Hugging Face module, a
            PeftModel, which counts without its adapter, a TransformerBridge), with `tokenizer`.
        aligned: the same after it; or leave it out and give `adapter`, or a PeftModel as base.
        adapter: directory or hub id of a PEFT adapter on top of base.
        tokenizer: of models in memory, the same for both.
        asking: system text, thinking, date and answer prefix in "chat".
        gguf: file name inside the directories, for GGUF checkpoints.
        dtype: "float32", "bfloat16" or "float16".
        device: "auto", a device name, "balanced" (several GPUs) or a module -> device map.
        chat_template: "own" (each model its own; where one has none, the other's serves both), "aligned", or a
            template file for both.
        revision: branch, tag or commit, for hub ids.

    Returns:
        The pair, with a compatibility report.

    Raises:
        UsageError: if neither or both of `aligned` and `adapter` are given.
        ModelLoadError: if a checkpoint cannot be used.
        PairMismatchError: if the two cannot be compared.

    Example:
        >>> load_pair("path/to/base", "path/to/aligned")          # doctest: +SKIP
    """
    options = {
        "tokenizer": tokenizer,
        "asking": asking,
        "gguf": gguf,
        "dtype": dtype,
        "device": device,
        "revision": revision,
    }
    return load_pairs(base, (aligned,), (adapter,), chat_template=chat_template, **options)[0]


def load_pairs(
    base: Given,
    aligned: Sequence[Given | None],
    adapters: Sequence[str | Path | None],
    *,
    chat_template: str = "own",
    tokenizer: Any = None,
    asking: Asking | None = None,
    **options: Any,
) -> list[ModelPair]:
    """Load one base and several aligned models (or adapters on it): the pairs of the base with each, the base held once.

    Args:
        base: as for `load_pair`.
        aligned, adapters: one of each for every pair, one of the two None.
        chat_template, tokenizer, asking: as for `load_pair`.
        options: gguf, dtype, device and revision, as for `load_pair`.

    Raises:
        UsageError, ModelLoadError, PairMismatchError: as `load_pair`.
    """
    wrapped = is_model(base) and hasattr(base, "peft_config")
    for one, adapter in zip(aligned, adapters, strict=True):
        if (one is None) == (adapter is None) and not (wrapped and one is None and adapter is None):
            got = "both" if one is not None else "neither"
            fix = "give pair.aligned (a checkpoint) or pair.adapter (a PEFT adapter on base)."
            raise UsageError(explain("a pair needs an aligned model or an adapter.", [("got", got)], fix))
    first = from_memory(base, tokenizer, adapted=False) if is_model(base) else load_model(base, **options)
    pairs = []
    for one, adapter in zip(aligned, adapters, strict=True):
        own = tokenizer if tokenizer is not None else first.tokenizer
        if adapter is not None:
            second = apply_adapter(first, adapter)
        elif one is None or is_model(one):
            second = from_memory(base if one is None else one, own)
            _same_place(first, second)
        else:
            second = load_model(str(one), **(options | _same_map(first, options)))
        pairs.append(make_pair(first, second, chat_template=chat_template, asking=asking))
    return pairs


def _same_map(base: LoadedModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Where a map is left to the memory that is free: the base's own, so that both models lie over the devices alike."""
    placed = getattr(base.model, "hf_device_map", None)
    return {"device": dict(placed)} if placed and options.get("device") in ("balanced", "sequential") else {}


def _same_place(base: LoadedModel, aligned: LoadedModel) -> None:
    if base.device != aligned.device:
        rows = [("base", base.device), ("aligned", aligned.device)]
        raise UsageError(explain("the two models are on different devices.", rows, "move one: model.to(device)"))


def make_pair(
    base: LoadedModel, aligned: LoadedModel, *, chat_template: str = "own", asking: Asking | None = None
) -> ModelPair:
    """Return the pair of two loaded models, compared and with their chat templates settled.

    Raises:
        PairMismatchError: if the two cannot be compared.
        ConfigError: a chat template that leaves out the system text.
    """
    base = with_ids_of(base, aligned)
    own = (base.chat_template, aligned.chat_template)
    texts, note = _templates(own, chat_template)
    how = asking or Asking()
    told = [
        asking_notes(model.tokenizer, text, how, who=who)
        for who, model, text in zip(MODELS, (base, aligned), texts, strict=True)
    ]
    note = "; ".join([*([note] if note else []), *dict.fromkeys(one for found in told for one in found)])
    texts = (asked_with(texts[0], how) if texts[0] else None, asked_with(texts[1], how) if texts[1] else None)
    base = dataclasses.replace(base, chat_template=texts[0])
    aligned = dataclasses.replace(aligned, chat_template=texts[1])
    return ModelPair(base=base, aligned=aligned, report=compare(base, aligned, template_note=note))


def _templates(own: tuple[str | None, str | None], choice: str) -> tuple[tuple[str | None, str | None], str]:
    base, aligned = own
    if choice == "own":
        if base is None and aligned is not None:
            return (aligned, aligned), "base has no chat template: aligned's serves both"
        if aligned is None and base is not None:
            return (base, base), "aligned has no chat template: base's serves both"
        return own, "no chat template: plain only" if base is None else ""
    if choice == "aligned":
        return (aligned, aligned), "aligned's chat template serves both"
    path = Path(choice)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        rows = [("chat_template", choice), ("must be", "own, aligned, or a readable file")]
        raise ConfigError(explain("no such chat template.", rows, "check the path.")) from error
    return (text, text), f"chat template of {path.name} serves both"

"""A quantised checkpoint's tensors as an ordinary state dict, where they say themselves how they are to be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from taxlens.activations.models.checkpoint import first_line
from taxlens.activations.models.quantised import weight_formats as formats
from taxlens.activations.models.quantised.weight_formats import FormatError, Parts

Tensor = torch.Tensor
_NARROW = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)
_LEFT_ASIDE = re.compile(
    r"\.(input_scale|input_zero_point|input_global_scale|activation_scale|output_scale|k_scale|v_scale|weight_format|"
    r"k_proj\.output_scale|v_proj\.output_scale)$"
)
"""What quantises activations and caches: it is no weight."""


@dataclass(frozen=True, slots=True)
class DequantisedState:
    """A state dict with ordinary weights.

    Args:
        state: name in the model to tensor.
        decoded: names of the matrices that were quantised, [outputs, inputs] each.
        told: how many of which format, in words; blank where none was found.
    """

    state: dict[str, Tensor]
    decoded: frozenset[str]
    told: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One format: which tensors of a module it is known by, and how they are decoded.

    Args:
        name: as notes call it.
        needs: tensors that must be there.
        decode: to float32 [outputs, inputs].
        takes: further tensors that belong to it.
    """

    name: str
    needs: tuple[str, ...]
    decode: Callable[[Parts, Mapping[str, Any]], Tensor]
    takes: tuple[str, ...] = ()


_GROUPED = ("weight_zero_point", "weight_g_idx")
_RULES = (
    Rule("AWQ", ("qweight", "qzeros", "scales"), formats.awq),
    Rule("GPTQ", ("qweight", "qzeros", "scales"), formats.gptq, ("g_idx",)),
    Rule("bitsandbytes 8-bit", ("weight", "SCB"), formats.eight_bit_rows),
    Rule("packed integers", ("weight_packed", "weight_scale", "weight_shape"), formats.packed_integers, _GROUPED),
    Rule("4-bit floats", ("weight_packed", "weight_scale"), formats.block_floats, ("weight_global_scale",)),
    Rule("4-bit floats", ("weight", "weight_scale", "weight_scale_2"), formats.block_floats),
    Rule("scaled 8-bit numbers", ("weight", "weight_scale"), formats.scaled_numbers, _GROUPED),
    Rule("scaled 8-bit numbers", ("weight", "weight_scale_inv"), formats.scaled_numbers),
)
_SUFFIXES = sorted({part for rule in _RULES for part in (*rule.needs, *rule.takes)} - {"weight"}, key=len, reverse=True)


def dequantised_state(
    files: list[Path], settings: Mapping[str, Any], dtype: torch.dtype, *, renamed: Callable[[str], str]
) -> DequantisedState:
    """Return a checkpoint's state dict with ordinary weights.

    Args:
        files: its safetensors files.
        settings: `quantization_config` of its config.
        dtype: of the decoded weights; what was not quantised stays as it is.
        renamed: name in the file to name in the model.

    Raises:
        FormatError: tensors of a format that none of the rules decodes.
    """
    if (settings.get("sparsity_config") or {}).get("format", "dense") != "dense":
        raise FormatError("sparse weights")
    told: Counter[str] = Counter()
    decoded = set()
    state: dict[str, Tensor] = {}
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, framework="pt")) for path in files]
        where = {name: file for file in opened for name in file.keys()}  # noqa: SIM118
        modules, plain = _sorted(list(where))
        for module, names in modules.items():
            parts = {part: where[name].get_tensor(name) for part, name in names.items()}
            rule = _rule(parts, str(settings.get("quant_method", "")))
            if rule is None:
                plain += [(name, f"{module}.{part}") for part, name in names.items()]
                continue
            told[rule.name] += 1
            goal = renamed(f"{module}.weight")
            state[goal] = _decoded(rule, module, parts, settings).to(dtype)
            decoded.add(goal)
        for name, goal in plain:
            if goal.endswith("_scales") and f"{goal.removesuffix('scales')}blocks" in where:
                continue
            tensor = where[name].get_tensor(name)
            if goal.endswith("_blocks"):
                scales = f"{name.removesuffix('blocks')}scales"
                told["MXFP4 experts"] += 1
                tensor = formats.expert_blocks(tensor, where[scales].get_tensor(scales)).to(dtype)
                goal = goal.removesuffix("_blocks")
            state[renamed(goal)] = _ordinary(goal, tensor)
    return DequantisedState(state, frozenset(decoded), ", ".join(f"{n} {_many(n, name)}" for name, n in told.items()))


def _decoded(rule: Rule, module: str, parts: Parts, settings: Mapping[str, Any]) -> Tensor:
    try:
        found = rule.decode(parts, settings)
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise FormatError(f"{module}, read as {rule.name}: {first_line(error)[:160]}") from error
    return found


def _many(count: int, name: str) -> str:
    return f"{'matrix' if count == 1 else 'matrices'} of {name}"


def _sorted(names: list[str]) -> tuple[dict[str, dict[str, str]], list[tuple[str, str]]]:
    """Tensors of modules that may be quantised (module to part to name), and the others (name in the file, and after)."""
    modules: dict[str, dict[str, str]] = {}
    plain = []
    for name in names:
        if _LEFT_ASIDE.search(name):
            continue
        head, found, tail = name.partition(".weight.")
        if found:
            modules.setdefault(head, {})[f"weight.{tail}"] = name
            continue
        module, _, part = name.rpartition(".")
        if part in _SUFFIXES:
            modules.setdefault(module, {})[part] = name
        else:
            plain.append((name, name))
    for name, _ in list(plain):
        module, _, part = name.rpartition(".")
        if part == "weight" and module in modules:
            modules[module]["weight"] = name
            plain.remove((name, name))
    return modules, plain


def _rule(parts: Parts, method: str) -> Rule | None:
    """The format that a module's tensors are of; None where there is but an ordinary weight."""
    if any(part.startswith("weight.quant_state.") for part in parts):
        return Rule("bitsandbytes 4-bit", (), formats.four_bit_blocks)
    for rule in _RULES:
        if set(rule.needs) <= parts.keys() <= {*rule.needs, *rule.takes}:
            if rule.name == "AWQ" and method != "awq":
                continue
            return rule
    if parts.keys() == {"weight"}:
        return None
    raise FormatError(f"no rule for the tensors {', '.join(sorted(parts))}")


def _ordinary(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype in _NARROW:
        raise FormatError(f"{name} is {tensor.dtype} and has no scale")
    return tensor


def renamer(patterns: Mapping[str, str]) -> Callable[[str], str]:
    """A function that renames weights by patterns, one after the other (as transformers' `key_mapping`)."""

    def renamed(name: str) -> str:
        for pattern, put in patterns.items():
            name = re.sub(pattern, put, name)
        return name

    return renamed

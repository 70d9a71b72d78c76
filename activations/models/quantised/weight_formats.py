"""What the tensors of a quantised matrix stand for, format by format: each function gives the matrix in float32.

A matrix is [outputs, inputs], as an ordinary `weight` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from taxlens.activations.models.quantised.packed_numbers import (
    bit_fields,
    four_bit_floats,
    halves,
    powers_of_two,
    spread,
)
from taxlens.core.json_text import parse_json

Tensor = torch.Tensor
Parts = Mapping[str, Tensor]
"""A module's tensors by what follows the module's name ("qweight", "weight.absmax", ...)."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in each 4-bit field of an AWQ word."""


class FormatError(ValueError):
    """Tensors that no rule here decodes; the text says why."""


def gptq(parts: Parts, settings: Mapping[str, Any]) -> Tensor:
    """scale * (q - zero), packed along the inputs; inputs belong to the groups that `g_idx` says.

    In the first version of the format, a stored zero point is one less than what it stands for.

    References:
        Frantar et al. 2022, GPTQ, arXiv 2210.17323; the layout is AutoGPTQ's ("gptq") and GPTQModel's ("gptq_v2").
    """
    bits = int(settings["bits"])
    numbers = bit_fields(parts["qweight"].T.contiguous(), bits)  # [out, in]
    zeros = bit_fields(parts["qzeros"], bits)[:, : numbers.shape[0]]  # [groups, out]
    if settings.get("checkpoint_format") != "gptq_v2":
        if int(zeros.max()) == (1 << bits) - 1:
            raise FormatError("a GPTQ zero point of 0, which the first version of the format cannot hold")
        zeros = zeros + 1
    scales = parts["scales"].float()
    inputs = numbers.shape[1]
    size = int(settings.get("group_size") or -1)
    groups = parts.get("g_idx")
    if groups is None:
        groups = torch.arange(inputs) // (size if size > 0 else inputs)
    groups = groups.long()
    return (scales[groups] * (numbers.T - zeros[groups])).T.contiguous()


def awq(parts: Parts, settings: Mapping[str, Any]) -> Tensor:
    """scale * (q - zero), packed along the outputs in the order of `AWQ_ORDER`.

    References:
        Lin et al. 2023, AWQ, arXiv 2306.00978; the layout is AutoAWQ's version "gemm".
    """
    bits, version = (
        int(settings.get("bits") or settings.get("w_bit") or 4),
        str(settings.get("version", "gemm")).lower(),
    )
    if bits != 4 or version != "gemm":
        raise FormatError(f"AWQ of {bits} bits, version {version}; read here: 4 bits, version gemm")

    def unpacked(words: Tensor) -> Tensor:
        fields = bit_fields(words, 4).unflatten(-1, (-1, 8))
        return fields[..., torch.tensor(AWQ_ORDER).argsort()].flatten(-2)

    numbers, zeros = unpacked(parts["qweight"]), unpacked(parts["qzeros"])  # [in, out], [groups, out]
    size = numbers.shape[0] // zeros.shape[0]
    groups = torch.arange(numbers.shape[0]) // size
    return (parts["scales"].float()[groups] * (numbers - zeros[groups])).T.contiguous()


def four_bit_blocks(parts: Parts, _settings: Mapping[str, Any]) -> Tensor:
    """bitsandbytes NF4 and FP4: a table of 16 values times the largest magnitude of a block, which may be quantised too.

    References:
        Dettmers et al. 2023, QLoRA, arXiv 2305.14314.
    """
    name = next(name for name in parts if name.startswith("weight.quant_state."))
    state = parse_json(bytes(parts[name].to(torch.uint8).tolist()).decode())
    largest = parts["weight.absmax"]
    if "weight.nested_absmax" in parts:
        outer = parts["weight.nested_absmax"].float().repeat_interleave(int(state["nested_blocksize"]))
        table = parts["weight.nested_quant_map"].float()
        largest = table[largest.long()] * outer[: len(largest)] + float(state["nested_offset"])
    numbers = halves(parts["weight"].flatten(), high_first=True)
    shape = tuple(int(size) for size in state["shape"])
    count = shape[0] * shape[1]
    scale = largest.float().repeat_interleave(int(state["blocksize"]))[:count]
    return (parts["weight.quant_map"].float()[numbers[:count]] * scale).reshape(shape)


def eight_bit_rows(parts: Parts, _settings: Mapping[str, Any]) -> Tensor:
    """bitsandbytes LLM.int8: q / 127 times the largest magnitude of the row.

    References:
        Dettmers et al. 2022, LLM.int8(), arXiv 2208.07339.
    """
    return parts["weight"].float() * (parts["SCB"].float()[:, None] / 127)


def packed_integers(parts: Parts, settings: Mapping[str, Any]) -> Tensor:
    """compressed-tensors pack-quantized: scale * (q - zero), q in two's complement by an offset of half the range."""
    rows, columns = (int(size) for size in parts["weight_shape"].tolist())
    bits = _packed_bits(parts["weight_packed"].shape[-1], columns, settings)
    numbers = bit_fields(parts["weight_packed"], bits)[:, :columns] - (1 << (bits - 1))
    zero = parts.get("weight_zero_point")
    if zero is not None and zero.dtype == torch.int32 and zero.shape != parts["weight_scale"].shape:
        zero = bit_fields(zero.T.contiguous(), bits).T[:rows] - (1 << (bits - 1))
    return _scaled(numbers, parts["weight_scale"], zero, parts.get("weight_g_idx"), settings)


def scaled_numbers(parts: Parts, settings: Mapping[str, Any]) -> Tensor:
    """8-bit integers or floats times a scale for the whole, each row, a group or a block (fp8, fbgemm, W8A8, ModelOpt)."""
    weight = parts["weight"]
    scale = parts.get("weight_scale", parts.get("weight_scale_inv"))
    if weight.dim() != 2 or scale is None:
        raise FormatError(f"a scaled weight of {weight.dim()} axes; read here: 2")
    return _scaled(weight, scale, parts.get("weight_zero_point"), parts.get("weight_g_idx"), settings)


def block_floats(parts: Parts, _settings: Mapping[str, Any]) -> Tensor:
    """4-bit floats times a scale for each 16 (NVFP4: 8-bit float and one for the whole) or 32 inputs (MXFP4: 2^(e - 127)).

    References:
        OCP Microscaling Formats (MX) Specification 1.0; NVFP4 as compressed-tensors divides by its global scale and
        ModelOpt multiplies by it.
    """
    packed = parts["weight_packed"] if "weight_packed" in parts else parts["weight"]
    numbers = four_bit_floats(halves(packed))
    scale = parts["weight_scale"]
    scale = powers_of_two(scale) if scale.dtype == torch.uint8 else scale.float()
    if "weight_global_scale" in parts:
        scale = scale / parts["weight_global_scale"].float()
    if "weight_scale_2" in parts:
        scale = scale * parts["weight_scale_2"].float()
    return numbers * spread(scale, (int(numbers.shape[0]), int(numbers.shape[1])))


def expert_blocks(blocks: Tensor, scales: Tensor) -> Tensor:
    """gpt-oss's experts in MXFP4: [experts, outputs, groups, 16 bytes] and exponents, to [experts, inputs, outputs]."""
    numbers = four_bit_floats(halves(blocks)) * powers_of_two(scales)[..., None]
    return numbers.flatten(-2).transpose(-1, -2).contiguous()


def _packed_bits(words: int, columns: int, settings: Mapping[str, Any]) -> int:
    """Bits of a number, by the config's groups where they all say the same, else by how many words a row takes."""
    groups = (settings.get("config_groups") or {}).values()
    found = {int(bits) for group in groups if (bits := ((group or {}).get("weights") or {}).get("num_bits"))}
    fitting = [bits for bits in (sorted(found) or (2, 4, 8)) if -(-columns // (32 // bits)) == words]
    if len(fitting) != 1:
        raise FormatError(f"{words} words a row for {columns} inputs, of {sorted(found) or 'unknown'} bits")
    return fitting[0]


def _scaled(
    numbers: Tensor, scale: Tensor, zero: Tensor | None, order: Tensor | None, settings: Mapping[str, Any]
) -> Tensor:
    """(numbers - zero) * scale, scales and zero points by group of inputs or block; `order` says each input's group."""
    shape, sizes = (int(numbers.shape[0]), int(numbers.shape[1])), _block_sizes(settings)

    def each(given: Tensor) -> Tensor:
        if order is not None and given.dim() == 2 and given.shape[1] > 1 and int(order.min()) >= 0:
            return given[:, order.long()]
        return spread(given, shape, sizes)

    numbers = numbers.float()
    return (numbers if zero is None else numbers - each(zero.float())) * each(scale.float())


def _block_sizes(settings: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(rows, columns) that share a scale, as a config says it: of blocks, or of groups of inputs."""
    found = [settings["weight_block_size"]] if settings.get("weight_block_size") else []
    for group in (settings.get("config_groups") or {}).values():
        weights = (group or {}).get("weights") or {}
        found += [weights["block_structure"]] if isinstance(weights.get("block_structure"), list) else []
        found += [(1, weights["group_size"])] if int(weights.get("group_size") or 0) > 0 else []
    return [(int(rows), int(columns)) for rows, columns in found]

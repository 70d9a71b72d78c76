"""Small numbers packed into larger ones: bit fields of 32-bit words, 4-bit floats, powers of two."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensor = torch.Tensor

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The magnitudes of a 4-bit float with two exponent bits and one of mantissa; the fourth bit is the sign.

Source: OCP Microscaling Formats (MX) Specification 1.0, 5.3.3.
"""


def bit_fields(words: Tensor, bits: int) -> Tensor:
    """Return the whole numbers that the 32-bit words of the last axis hold one after the other, lowest bits first.

    Where `bits` does not divide 32, a number goes on in the next word.

    Args:
        words: int32 [..., n].
        bits: of a number, 1 to 8.

    Returns:
        int64 [..., 32 n / bits], each 0 to 2^bits - 1.

    Example:
        >>> bit_fields(torch.tensor([0x321]), 4)[:4].tolist()
        [1, 2, 3, 0]
    """
    wide = words.to(torch.int64) & 0xFFFFFFFF
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, device=words.device)
        return ((wide[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)
    ones = ((wide[..., None] >> torch.arange(32, device=words.device)) & 1).flatten(-2)
    ones = ones[..., : ones.shape[-1] // bits * bits].unflatten(-1, (-1, bits))
    return (ones << torch.arange(bits, device=words.device)).sum(-1)


def halves(packed: Tensor, *, high_first: bool = False) -> Tensor:
    """Return the two 4-bit numbers of every byte of the last axis, int64 [..., 2 n]."""
    low, high = packed.to(torch.int64) & 15, packed.to(torch.int64) >> 4
    return torch.stack((high, low) if high_first else (low, high), dim=-1).flatten(-2)


def four_bit_floats(numbers: Tensor) -> Tensor:
    """Return what E2M1 numbers 0 to 15 stand for, float32 of the same shape."""
    table = torch.tensor([*E2M1, *(-one for one in E2M1)], device=numbers.device)
    return table[numbers]


def powers_of_two(exponents: Tensor) -> Tensor:
    """Return 2^(e - 127) of bytes e, float32 (E8M0; 255 stands for no number)."""
    values = torch.ldexp(torch.ones((), device=exponents.device), exponents.to(torch.int32) - 127)
    return values.masked_fill(exponents == 255, float("nan"))


def spread(scales: Tensor, shape: tuple[int, int], sizes: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Return one scale for each entry of a matrix, from one for the whole, a row, a group of inputs or a block.

    Args:
        scales: [], [1], [rows], [rows, groups] or [row blocks, column blocks].
        shape: (rows, columns) of the matrix.
        sizes: (rows, columns) that a block may have, by the config; a last block may be smaller. Where none fits, blocks
            are of one size.

    Raises:
        ValueError: the blocks do not divide the matrix, and no size that is given fits.

    Example:
        >>> spread(torch.tensor([[1.0, 2.0]]), (1, 3), [(1, 2)]).tolist()
        [[1.0, 1.0, 2.0]]
    """
    if scales.numel() == 1:
        return scales.reshape(1, 1).expand(shape)
    if scales.dim() == 1:
        scales = scales[:, None]
    fitting = {
        size for size in sizes if tuple(-(-want // one) for want, one in zip(shape, size)) == tuple(scales.shape)
    }
    for axis in (0, 1):
        have, want = scales.shape[axis], shape[axis]
        if have in (1, want):
            continue
        size = {one[axis] for one in fitting} or ({want // have} if want % have == 0 else set())
        if len(size) != 1:
            raise ValueError(f"scales {list(scales.shape)} for a matrix {list(shape)}")
        scales = scales.repeat_interleave(size.pop(), dim=axis).narrow(axis, 0, want)
    return scales.expand(shape)

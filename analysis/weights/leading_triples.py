"""The leading singular triples of a weight's change, by a randomised sketch on the device where the weights lie.

A full decomposition of every matrix of a large model takes hours and gives more triples than a table can hold. Here
the change is read block by block, never whole in double precision; what is kept is the smallest rank that holds a
stated share of its energy, and what that leaves over is one unit of its own (`units.Part.rest`), so that sums close.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

SHARE = 0.99
"""Share of a change's squared Frobenius norm that its kept triples hold."""

MOST = 256
"""Most triples kept of one matrix; a matrix whose smaller side is no longer keeps all of them."""

BLOCK = 1 << 22
"""Numbers of a change that are formed at once."""

HELD = 1 << 24
"""Numbers of a change up to which it is formed once and held (64 MB in float32)."""

SPARE = 0.75
"""Share of a sketch's columns that may become triples: the others are there so that these are exact."""

Triples = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""U [out, r], S [r], Vh [r, in]."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockedChange:
    """Aligned minus base of one weight [out, in], formed some rows at a time on the device of the weights.

    Args:
        aligned, base: [rows, columns] as the checkpoint stores them; without a base, `aligned` is the change itself.
        transposed: whether that is [in, out].
    """

    aligned: torch.Tensor
    base: torch.Tensor | None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        rows, columns = self.aligned.shape
        return (columns, rows) if self.transposed else (rows, columns)

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
        """(which rows, change there) of the stored orientation."""
        step = max(1, BLOCK // self.aligned.shape[1])
        for start in range(0, len(self.aligned), step):
            rows = slice(start, start + step)
            yield rows, self._rows(rows).to(dtype)

    def formed(self) -> BlockedChange:
        """The same change, formed once where it is small enough to be held."""
        if self.base is None or self.aligned.numel() > HELD:
            return self
        return BlockedChange(self._rows(slice(None)), None, self.transposed)

    def corner(self, size: int) -> torch.Tensor:
        """A part of the change, float64 [size, size] at most, of rows and columns spread over it."""
        rows = self._rows(slice(None, None, max(1, self.aligned.shape[0] // size)))[:size]
        return rows[:, :: max(1, self.aligned.shape[1] // size)][:, :size].double()

    def _rows(self, rows: slice) -> torch.Tensor:
        wide = torch.float64 if self.aligned.dtype == torch.float64 else torch.float32
        end = self.aligned[rows].to(wide)
        return end if self.base is None else end - self.base[rows].to(end.device, wide)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """Delta x, [out, k] of x [in, k]."""
        return self._across(x) if self.transposed else self._along(x)

    def transposed_times(self, x: torch.Tensor) -> torch.Tensor:
        """Delta' x, [in, k] of x [out, k]."""
        return self._along(x) if self.transposed else self._across(x)

    def _along(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([block @ x for _, block in self.blocks(x.dtype)])

    def _across(self, x: torch.Tensor) -> torch.Tensor:
        out = x.new_zeros(self.aligned.shape[1], x.shape[1])
        for rows, block in self.blocks(x.dtype):
            out.addmm_(block.T, x[rows])
        return out

    def energy(self) -> float:
        """Squared Frobenius norm."""
        total = torch.zeros((), dtype=torch.float64, device=self.aligned.device)
        for _, block in self.blocks(torch.float64 if self.aligned.dtype == torch.float64 else torch.float32):
            total += torch.linalg.vector_norm(block, dtype=torch.float64) ** 2
        return float(total)

    def left_over(self, basis: torch.Tensor, inside: torch.Tensor) -> float:
        """Squared Frobenius norm of Delta - basis @ inside."""
        total = torch.zeros((), dtype=torch.float64, device=self.aligned.device)
        one, other = (inside.T, basis.T) if self.transposed else (basis, inside)
        for rows, block in self.blocks(basis.dtype):
            total += torch.linalg.vector_norm(block - one[rows] @ other, dtype=torch.float64) ** 2
        return float(total)


def low_rank_triples(change: BlockedChange, noise: float, *, most: int = 64) -> Triples | None:
    """Triples of a change of low rank by a random range finder; None where more than `noise` is left over.

    Args:
        change: the change.
        noise: Frobenius norm that the rounding of both ends explains.
        most: most triples that are looked for, and never more than a quarter of the smaller side.

    References:
        Halko, Martinsson, Tropp, Finding structure with randomness, SIAM Review 53 (2011), algorithm 4.1.
    """
    width = min(most, min(change.shape) // 4)
    if width < 1 or _rank_of_corner(change, noise) > width:
        return None
    basis = torch.linalg.qr(change.times(_probe(change, width, torch.float64))).Q
    inside = change.transposed_times(basis).T
    size = change.energy() ** 0.5
    if change.left_over(basis, inside) ** 0.5 > max(noise, 1e-14 * size):
        return None
    u, s, vh = torch.linalg.svd(inside, full_matrices=False)
    return basis @ u, s, vh


def leading_triples(change: BlockedChange, *, share: float = SHARE, most: int = MOST) -> Triples:
    """The fewest leading triples that hold a share of a change's energy, at most `most`.

    A sketch of 64 random columns with a power step, widened until its span amply holds the share; the span's Gram
    matrix gives values and vectors. Leading triples agree with a full decomposition's; the last few, where values lie
    close, are of the right span only.

    Args:
        change: the change, [out, in].
        share: of the squared Frobenius norm, in 0..1.
        most: most triples.

    References:
        Halko, Martinsson, Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1; Yu, Gu, Li, SIAM J. Matrix Anal.
        Appl. 39 (2018), on widening a sketch block by block.
    """
    dtype = torch.float64 if change.aligned.dtype == torch.float64 else torch.float32
    out, inside = change.shape
    change = change.formed()
    device, energy = change.aligned.device, change.energy()
    basis, rows = torch.zeros(out, 0, dtype=dtype, device=device), torch.zeros(0, inside, dtype=dtype, device=device)
    limit = min(out, inside, most + 8)
    probes = _probe(change, limit, dtype)
    while basis.shape[1] < limit:
        width = min(64, limit - basis.shape[1])
        found = _widened(change, basis, rows, probes[:, basis.shape[1] : basis.shape[1] + width])
        basis = torch.cat([basis, found], dim=1)
        rows = torch.cat([rows, change.transposed_times(found).T])
        values, vectors = torch.linalg.eigh(rows.double() @ rows.double().T)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        rank = 1 + int((values.cumsum(0) < share * energy).sum())
        if rank <= SPARE * basis.shape[1]:  # the last columns of a sketch are of no exact triple
            break
    rank = min(rank, most, int((values > 0).sum()))
    s, turn = values[:rank].sqrt(), vectors[:, :rank].to(dtype)
    return basis @ turn, s.to(dtype), (turn.T @ rows) / s.to(dtype)[:, None]


def significant(triples: Triples, shape: tuple[int, ...], dtype: torch.dtype, noise: float) -> Triples:
    """The triples that stand above rounding, in a dtype.

    Rounding is white: of its Frobenius norm `noise`, one triple holds at most about 2 / sqrt(smaller side).
    """
    u, s, vh = triples
    top = float(s[0]) if len(s) else 0.0
    floor = max(2 * noise / min(shape) ** 0.5, 8 * torch.finfo(dtype).eps * top)
    rank = int((s > floor).sum())
    return u[:, :rank].to(dtype), s[:rank].to(dtype), vh[:rank].to(dtype)


def _rank_of_corner(change: BlockedChange, noise: float) -> int:
    """Rank of a part of the change above what rounding explains: the change's own is no smaller."""
    corner = change.corner(min(160, 2 * MOST))
    rounding = noise / (change.shape[0] * change.shape[1]) ** 0.5 * sum(n**0.5 for n in corner.shape)
    values = torch.linalg.svdvals(corner)
    return int((values > max(4 * rounding, 1e-12 * float(values[0]))).sum())


def _widened(
    change: BlockedChange, basis: torch.Tensor, rows: torch.Tensor, probe: torch.Tensor, *, powers: int = 1
) -> torch.Tensor:
    """Further orthonormal columns for a basis, from what it does not hold of the change yet."""
    found = change.times(probe) - basis @ (rows @ probe)
    for _ in range(powers):
        found = torch.linalg.qr(found).Q
        back = torch.linalg.qr(change.transposed_times(found) - rows.T @ (basis.T @ found)).Q
        found = change.times(back) - basis @ (rows @ back)
    return torch.linalg.qr(found - basis @ (basis.T @ found)).Q


def _probe(change: BlockedChange, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Random columns, the same on every device: drawn on the CPU."""
    drawn = torch.randn(width, change.shape[1], generator=torch.Generator().manual_seed(0), dtype=dtype)
    return drawn.T.to(change.aligned.device, non_blocking=True)

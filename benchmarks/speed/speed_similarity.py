"""Similarity and spectra from moments against the Gram-matrix route, and what a whole pair costs.

    python -m benchmarks.speed.speed_similarity [--layers 30] [--map-layers 30]

Each part runs in a process of its own, so that its peak memory is its own, with as many threads as the machine has
cores (OMP_NUM_THREADS limits them). Rows are Gaussian with a power-law spectrum, float32, d = 576 as in SmolLM2-135M;
for the map they are read from files, layer by layer. Matched layers run as
`taxlens similarity` runs them: two at once, a thread each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from taxlens.core.parallel import in_order
from taxlens.probes.rows.moments import PairMoments
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.similarity.cka import cka
from taxlens.probes.similarity.layer_map import layer_map
from taxlens.probes.similarity.similarity import similarity
from taxlens.probes.spectra.spectra import spectra

D = 576


@lru_cache(maxsize=2)
def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two [n, 576] arrays of standard normal numbers, float32."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, D), dtype=np.float32), rng.standard_normal((n, D), dtype=np.float32)


def rows(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a pair [n, 576] that differs by a little noise, float32; another seed permutes the spectrum."""
    scale = np.random.default_rng(seed).permutation(np.arange(1, D + 1, dtype=np.float32) ** -0.7)
    first, second = drawn(n)
    X = first * scale
    return X, X + np.float32(0.02 * np.sqrt((scale**2).mean())) * second


def gram_cka(X: np.ndarray, Y: np.ndarray) -> float:
    """Debiased CKA by way of three n x n Gram matrices, float64 (Song et al. 2012, eq. 5)."""
    n = len(X)
    grams = []
    for Z in (X, Y):
        K = Z.astype(np.float64) @ Z.astype(np.float64).T
        np.fill_diagonal(K, 0)
        grams.append((K, K.sum(0)))

    def hsic(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
        (K, k), (L, m) = first, second
        return np.einsum("ij,ij->", K, L) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m)

    x, y = grams
    return float(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Return processor seconds, wall seconds, and what the work gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def peak() -> float:
    """Return the largest memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def blocks(X: np.ndarray, Y: np.ndarray, size: int = 2048) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pair in blocks of rows, of the size that a store gives them in."""
    return [(X[a : a + size], Y[a : a + size]) for a in range(0, len(X), size)]


def least(work: Callable[[], object], times: int = 3) -> tuple[float, float, object]:
    """Return the least processor and wall seconds of a few calls, and what the last gave."""
    runs = [timed(work) for _ in range(times)]
    return min(r[0] for r in runs), min(r[1] for r in runs), runs[-1][2]


def against_grams(n: int = 4096) -> None:
    """Print one layer by both routes, accumulation included, and their agreement."""
    import torch
    from ckatorch.core import cka_base

    X, Y = rows(n)
    pair = [torch.from_numpy(rows_.astype(np.float64)) for rows_ in (X, Y)]
    published, published_wall, _ = least(lambda: cka_base(*pair, unbiased=True))
    slow, slow_wall, expected = least(lambda: gram_cka(X, Y))
    fast, fast_wall, found = least(lambda: cka(PairMoments.from_blocks(blocks(X, Y))))
    print(f"debiased CKA, one layer, n = {n}, d = {D}, least of three")
    print(f"  ckatorch                        {published:7.2f} s cpu  {published_wall:7.2f} s")
    print(f"  Gram matrices, no cubic step    {slow:7.2f} s cpu  {slow_wall:7.2f} s")
    print(f"  moments, accumulation included  {fast:7.2f} s cpu  {fast_wall:7.2f} s")
    print(f"  by the clock faster than ckatorch {published_wall / fast_wall:.1f} x, ", end="")
    print(f"than Gram matrices {slow_wall / fast_wall:.1f} x; relative difference {abs(found / expected - 1):.1e}")


def matched_layers(layers: int, n: int = 20_000) -> None:
    """Print what matched layers cost: one pass, cka, procrustes, linear_r2 both ways, both spectra, bands."""
    groups = np.arange(n) // 4
    rows(n)

    def work(pair: tuple[np.ndarray, np.ndarray]) -> float:
        gathered = gather(blocks(*pair), groups)
        similarity(gathered, measures=["cka", "procrustes", "linear_r2"])
        return float(spectra(gathered).get("gain", 0).values[0])

    pairs = (rows(n, seed=layer) for layer in range(layers))
    cpu, wall, _ = timed(lambda: list(in_order(work, pairs, most=2)))
    print(f"{layers} matched layers, n = {n}, d = {D}: {wall:.0f} s, {cpu:.0f} s of processor, peak {peak():.2f} GiB")


def whole_map(layers: int, n: int = 4096) -> None:
    """Print what a layer x layer map of debiased CKA with its jackknife costs, rows read from files."""
    with tempfile.TemporaryDirectory() as folder:
        for layer in range(layers):
            for name, X in zip("ba", rows(n, seed=layer), strict=True):
                np.save(Path(folder) / f"{name}{layer}.npy", X)
        readers = [lambda layer, name=name: np.load(Path(folder) / f"{name}{layer}.npy") for name in "ba"]
        cpu, wall, _ = timed(lambda: layer_map(*readers, range(layers)))
    print(
        f"CKA map {layers} x {layers}, n = {n}, d = {D}: {wall:.0f} s, {cpu:.0f} s of processor, peak {peak():.2f} GiB"
    )


def main() -> None:
    """Run one part, or all of them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["grams", "matched", "map"])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--map-layers", type=int, default=30)
    asked = parser.parse_args()
    if asked.part is None:
        for part in ("grams", "matched", "map"):
            again = [sys.executable, "-m", "benchmarks.speed.speed_similarity", part, *sys.argv[1:]]
            subprocess.run(again, check=True)
    elif asked.part == "grams":
        against_grams()
    elif asked.part == "matched":
        matched_layers(asked.layers)
    else:
        whole_map(asked.map_layers)


if __name__ == "__main__":
    main()

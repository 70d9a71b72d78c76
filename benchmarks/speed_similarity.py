"""Similarity and spectra from moments against the Gram-matrix route, and what a whole pair costs.

    python -m benchmarks.speed_similarity [--layers 30] [--map-layers 30]

Times are processor seconds of this process (one BLAS thread), so that a busy machine does not change them;
wall time is shown beside. Rows are Gaussian with a power-law spectrum, float32, d = 576 as in SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from taxlens.probes.cka import cka
from taxlens.probes.gather import gather
from taxlens.probes.layer_map import layer_map
from taxlens.probes.moments import PairMoments
from taxlens.probes.similarity import similarity
from taxlens.probes.spectra import spectra

D = 576


def rows(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a pair [n, 576] that differs by a little noise, float32."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) * np.arange(1, D + 1) ** -0.7
    return X.astype(np.float32), (X + 0.02 * X.std() * rng.normal(size=X.shape)).astype(np.float32)


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


def blocks(X: np.ndarray, Y: np.ndarray, size: int = 512) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pair in blocks of rows."""
    return [(X[a : a + size], Y[a : a + size]) for a in range(0, len(X), size)]


def against_grams(n: int = 4096) -> None:
    """Print one layer by both routes, accumulation included, and their agreement."""
    X, Y = rows(n)
    import torch
    from ckatorch.core import cka_base

    torch.set_num_threads(1)
    pair = [torch.from_numpy(rows_.astype(np.float64)) for rows_ in (X, Y)]
    published, published_wall, _ = timed(lambda: cka_base(*pair, unbiased=True))
    slow, slow_wall, expected = timed(lambda: gram_cka(X, Y))
    fast, fast_wall, found = timed(lambda: cka(PairMoments.from_blocks(blocks(X, Y))))
    print(f"debiased CKA, one layer, n = {n}, d = {D}")
    print(f"  ckatorch                        {published:7.2f} s cpu  {published_wall:7.2f} s")
    print(f"  Gram matrices, no cubic step    {slow:7.2f} s cpu  {slow_wall:7.2f} s")
    print(f"  moments, accumulation included  {fast:7.2f} s cpu  {fast_wall:7.2f} s")
    print(f"  faster than ckatorch {published / fast:.1f} x, than Gram matrices {slow / fast:.1f} x")
    print(f"  relative difference {abs(found / expected - 1):.1e}")


def matched_layers(layers: int, n: int = 20_000) -> None:
    """Print what matched layers cost: one pass, cka, procrustes, linear_r2 both ways, both spectra, bands."""
    total = np.zeros(4)
    for layer in range(layers):
        X, Y = rows(n, seed=layer)
        groups = np.arange(n) // 4
        one_pass, _, gathered = timed(lambda X=X, Y=Y, groups=groups: gather(blocks(X, Y), groups))
        alike, _, _ = timed(lambda g=gathered: similarity(g, measures=["cka", "procrustes", "linear_r2"]))
        found, _, _ = timed(lambda g=gathered: spectra(g))
        total += [one_pass, alike, found, one_pass + alike + found]
    each = total / layers
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"matched layers, n = {n}, d = {D}, mean of {layers}: processor seconds a layer")
    print(f"  one pass {each[0]:.2f}, measures {each[1]:.2f}, spectra {each[2]:.2f}, all {each[3]:.2f}")
    print(f"  30 layers: {30 * each[3]:.0f} s on one core, {15 * each[3]:.0f} s on two; peak memory {memory:.2f} GiB")


def whole_map(layers: int, n: int = 4096) -> None:
    """Print what a layer x layer map of debiased CKA with its jackknife costs."""
    pairs = [rows(n, seed=layer) for layer in range(layers)]
    readers = (lambda layer: pairs[layer][0], lambda layer: pairs[layer][1])
    spent, wall, _ = timed(lambda: layer_map(*readers, range(layers)))
    each = spent / layers**2
    print(f"CKA map {layers} x {layers}, n = {n}, d = {D}: {spent:.1f} s cpu, {wall:.1f} s, {each:.3f} s a cell")
    print(f"  30 x 30: {900 * each:.0f} s on one core, {450 * each:.0f} s on two")


def main() -> None:
    """Print all three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--map-layers", type=int, default=30)
    asked = parser.parse_args()
    with threadpool_limits(1):
        against_grams()
        matched_layers(asked.layers)
        whole_map(asked.map_layers)


if __name__ == "__main__":
    main()

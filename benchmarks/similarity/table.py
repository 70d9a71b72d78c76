"""Which references each measure is held against, and which published codes deviate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.spatial.distance
import scipy.stats

from benchmarks.similarity import references as ref


@dataclass(frozen=True)
class Reference:
    """One way to compute a measure: `value(X, Y, fold)`."""

    measure: str
    name: str
    value: Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def _plain(function: Callable, *transform: Callable) -> Callable:
    def value(X: np.ndarray, Y: np.ndarray, fold: np.ndarray) -> float:
        found = function(X, Y)
        for step in transform:
            found = step(found)
        return float(found)

    return value


def _heldout(function: Callable, fit: Callable, *, back: bool = False) -> Callable:
    return lambda X, Y, fold: function(*((Y, X) if back else (X, Y)), fold, fit)


def _effective_rank(energy: np.ndarray) -> float:
    return float(np.exp(scipy.stats.entropy(energy)))


def _drift_cosine_sklearn(X: np.ndarray, Y: np.ndarray) -> float:
    from sklearn.metrics.pairwise import paired_cosine_distances

    return float(1 - paired_cosine_distances(X, Y).mean())


def _drift_cosine_scipy(X: np.ndarray, Y: np.ndarray) -> float:
    return float(np.mean([1 - scipy.spatial.distance.cosine(a, b) for a, b in zip(X, Y, strict=True)]))


def _relative(norm: Callable) -> Callable:
    return lambda X, Y: norm(Y - X) / norm(X)


def _rotation(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    return scipy.linalg.orthogonal_procrustes(X, Y)[0]


def _sum_of_squares(rows: np.ndarray) -> float:
    return float(np.sqrt(sum(np.dot(row, row) for row in rows)))


def _symmetric_pwcca(X: np.ndarray, Y: np.ndarray) -> float:
    return 2 * ref.repsim_value("pwcca", X, Y) - ref.paper_pwcca(Y, X)


REFERENCES = tuple(
    Reference(*row)
    for row in (
        ("cka", "ckatorch 1.0.3, unbiased", _plain(ref.ckatorch_cka)),
        ("cka", "pytorch-cka 1.1.3", _plain(ref.pytorch_cka)),
        ("cka", "Song et al. 2012, eq. 5, Gram matrices", _plain(ref.song_cka)),
        ("cka_biased", "ckatorch 1.0.3", lambda X, Y, fold: ref.ckatorch_cka(X, Y, unbiased=False)),
        ("cka_biased", "repsim 0.1.5, linear, gretton",
         lambda X, Y, fold: ref.repsim_value("cka", X, Y, kernel_type="linear", estimator="gretton")),
        ("procrustes", "scipy orthogonal_procrustes, fold by fold", _heldout(ref.heldout_cosine, _rotation)),
        ("procrustes", "qc-procrustes 1.1.3, fold by fold", _heldout(ref.heldout_cosine, ref.qc_rotation)),
        ("procrustes_cosine", "scipy.spatial.procrustes", _plain(ref.scipy_cosine)),
        ("procrustes_cosine", "qc-procrustes 1.1.3", _plain(ref.qc_cosine)),
        ("angular", "scipy.spatial.procrustes, arccos", _plain(ref.scipy_cosine, np.arccos)),
        ("angular", "qc-procrustes 1.1.3, arccos", _plain(ref.qc_cosine, np.arccos)),
        ("linear_r2", "scikit-learn Ridge, fold by fold", _heldout(ref.heldout_linear_r2, ref.sklearn_ridge)),
        ("linear_r2", "augmented least squares", _heldout(ref.heldout_linear_r2, ref.augmented_ridge)),
        ("linear_r2_back", "scikit-learn Ridge, fold by fold",
         _heldout(ref.heldout_linear_r2, ref.sklearn_ridge, back=True)),
        ("linear_r2_back", "augmented least squares",
         _heldout(ref.heldout_linear_r2, ref.augmented_ridge, back=True)),
        ("drift", "numpy Frobenius norms", _plain(_relative(np.linalg.norm))),
        ("drift", "row by row sums", _plain(_relative(_sum_of_squares))),
        ("drift_cosine", "scikit-learn paired_cosine_distances", _plain(_drift_cosine_sklearn)),
        ("drift_cosine", "scipy cosine, row by row", _plain(_drift_cosine_scipy)),
        ("drift_rank", "numpy singular values, scipy entropy", _plain(ref.movement_energy, _effective_rank)),
        ("drift_rank", "torch Gram eigenvalues, scipy entropy", _plain(ref.torch_energy, _effective_rank)),
        ("drift_top1", "numpy singular values", _plain(ref.movement_energy, lambda e: e[0] / e.sum())),
        ("drift_top1", "torch Gram eigenvalues", _plain(ref.torch_energy, lambda e: e[0] / e.sum())),
        ("drift_top10", "numpy singular values", _plain(ref.movement_energy, lambda e: e[:10].sum() / e.sum())),
        ("drift_top10", "torch Gram eigenvalues", _plain(ref.torch_energy, lambda e: e[:10].sum() / e.sum())),
        ("drift_shift", "numpy rows", _plain(ref.shift_share)),
        ("drift_shift", "1 - variance / energy", _plain(ref.shift_share_by_variance)),
        ("subspace", "scipy subspace_angles", _plain(ref.angle_overlap)),
        ("subspace", "scikit-learn PCA", _plain(ref.sklearn_overlap)),
        ("mutual_knn", "scikit-learn ball tree",
         lambda X, Y, fold: ref.neighbour_overlap(X, Y, ref.sklearn_neighbours)),
        ("mutual_knn", "scipy cKDTree", lambda X, Y, fold: ref.neighbour_overlap(X, Y, ref.tree_neighbours)),
        ("cca", "scipy subspace_angles", _plain(ref.angle_correlations, np.square, np.mean)),
        ("cca", "cca-zoo 4.0.1", _plain(ref.zoo_correlations, np.square, np.mean)),
        ("cca", "repsim 0.1.5, yanai",
         lambda X, Y, fold: ref.repsim_value("cca", X, Y, summary_type="yanai")),
        ("svcca", "numpy svd, scipy subspace_angles",
         lambda X, Y, fold: ref.angle_correlations(ref.truncated_svd(X), ref.truncated_svd(Y)).mean()),
        ("svcca", "scikit-learn PCA, cca-zoo 4.0.1",
         lambda X, Y, fold: ref.zoo_correlations(ref.truncated(X), ref.truncated(Y)).mean()),
        ("pwcca", "Morcos et al. 2018, section 2, on rows", _plain(ref.paper_pwcca)),
        ("pwcca", "repsim 0.1.5 (its mean of both ways, other way taken off)", _plain(_symmetric_pwcca)),
        ("gulp", "difference of ridge smoothers", _plain(ref.gulp_primal)),
        ("gulp", "kernel ridge eigenvalues", _plain(ref.gulp_kernel)),
        ("rsa", "rsatoolbox 0.3.2, correlation, spearman",
         lambda X, Y, fold: ref.rsatoolbox_value(X, Y, "correlation", "spearman")),
        ("rsa", "scipy pdist, spearmanr", _plain(ref.scipy_rsa)),
    )
)  # fmt: skip

DEVIATIONS = (
    ("cka", "repsim 0.1.5, linear, song", "not the U-statistic: two other codes and the formula agree with taxlens",
     lambda X, Y: ref.repsim_value("cka", X, Y, kernel_type="linear", estimator="song")),
    ("cka", "repsim 0.1.5, linear, lange", "a third estimator, neither the biased nor the unbiased one",
     lambda X, Y: ref.repsim_value("cka", X, Y, kernel_type="linear", estimator="lange")),
    ("cca", "repsim 0.1.5, pillai", "returns the mean of rho, not of rho squared",
     lambda X, Y: ref.repsim_value("cca", X, Y, summary_type="pillai")),
    ("svcca", "repsim 0.1.5, pillai", "not the mean of rho of any pair of leading component counts",
     lambda X, Y: ref.repsim_value("svcca", X, Y, summary_type="pillai")),
    ("pwcca", "repsim 0.1.5", "mean of both ways; the paper weighs by one side",
     lambda X, Y: ref.repsim_value("pwcca", X, Y)),
)  # fmt: skip


def rows_of_a_pair(n: int = 300, d: int = 12, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a pair X, Y [n, d] that shares half of its variance, off centre, and a fold [n] of each row."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, d // 2))
    X = shared @ rng.normal(size=(d // 2, d)) + 0.8 * rng.normal(size=(n, d)) + 3
    Y = shared @ rng.normal(size=(d // 2, d)) + 0.8 * rng.normal(size=(n, d)) - 1
    return X, Y, np.arange(n) % 5

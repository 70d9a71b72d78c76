"""Each measure by other people's code, or by its paper's formula on rows instead of moments.

`REFERENCES[measure]` lists (name, function of X, Y [, folds]) that must agree to 1e-8; `DEVIATIONS` lists
published codes that do not, with what they do instead. Nothing here imports taxlens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.spatial
import scipy.stats
import torch
from scipy.spatial.distance import pdist

Rows = np.ndarray


def _centred(X: Rows) -> Rows:
    return X - X.mean(0)


def _gram(X: Rows) -> Rows:
    return X @ X.T


# --- CKA -----------------------------------------------------------------------------------------------


def song_hsic(X: Rows, Y: Rows) -> float:
    """Unbiased HSIC from Gram matrices, eq. 5 of Song et al. 2012."""
    n, ones = len(X), np.ones(len(X))
    K, L = _gram(X), _gram(Y)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    sums = K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (ones @ K @ L @ ones)
    return float((np.trace(K @ L) + sums) / (n * (n - 3)))


def song_cka(X: Rows, Y: Rows, *, epsilon: float = 0.0) -> float:
    """Debiased CKA from it; some published codes add an epsilon to the denominator."""
    return song_hsic(X, Y) / (np.sqrt(song_hsic(X, X) * song_hsic(Y, Y)) + epsilon)


def ckatorch_cka(X: Rows, Y: Rows, *, unbiased: bool = True) -> float:
    """CKA of ckatorch 1.0.3."""
    from ckatorch.core import cka_base

    return float(cka_base(torch.from_numpy(X), torch.from_numpy(Y), unbiased=unbiased))


def pytorch_cka(X: Rows, Y: Rows) -> float:
    """Debiased CKA from the HSIC of pytorch-cka 1.1.3."""
    from cka.hsic import hsic

    xy, xx, yy = hsic(*(torch.from_numpy(_gram(rows))[None] for rows in (X, Y)))
    return float(xy[0, 0] / (xx[0] * yy[0]).sqrt())


def repsim_value(function: str, X: Rows, Y: Rows, **options: str) -> float:
    """Any pairwise measure of repsim 0.1.5."""
    import repsim

    return float(getattr(repsim, function)([X, Y], **options)[0, 1])


# --- Procrustes ----------------------------------------------------------------------------------------


def scipy_cosine(X: Rows, Y: Rows) -> float:
    """Procrustes cosine from scipy.spatial.procrustes, whose disparity is 1 - cosine^2."""
    return float(np.sqrt(1 - scipy.spatial.procrustes(X, Y)[2]))


def qc_cosine(X: Rows, Y: Rows) -> float:
    """Procrustes cosine from the error of qc-procrustes 1.1.3."""
    from procrustes import orthogonal

    error = orthogonal(X, Y, translate=True, scale=True).error
    return float(1 - error / 2)


def heldout_cosine(X: Rows, Y: Rows, fold: Rows, fit: Callable[[Rows, Rows], Rows]) -> float:
    """Cosine of held-out rows after a rotation that `fit` finds on the other folds."""
    agreement = size_x = size_y = 0.0
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        x, y = X[test] - X[train].mean(0), Y[test] - Y[train].mean(0)
        R = fit(_centred(X[train]), _centred(Y[train]))
        agreement += float(((x @ R) * y).sum())
        size_x, size_y = size_x + float((x**2).sum()), size_y + float((y**2).sum())
    return agreement / np.sqrt(size_x * size_y)


def qc_rotation(X: Rows, Y: Rows) -> Rows:
    """Rotation of qc-procrustes 1.1.3."""
    from procrustes import orthogonal

    return orthogonal(X, Y).t


# --- Linear regression -----------------------------------------------------------------------------------


def heldout_linear_r2(X: Rows, Y: Rows, fold: Rows, fit: Callable[[Rows, Rows, float], Callable]) -> float:
    """Pooled held-out R^2 of ridge maps with penalty 1e-4 mean eigenvalues."""
    wrong = spread = 0.0
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        penalty = 1e-4 * X[train].var(0).mean() * train.sum()
        predicted = fit(X[train], Y[train], penalty)(X[test])
        wrong += float(((Y[test] - predicted) ** 2).sum())
        spread += float(((Y[test] - Y[train].mean(0)) ** 2).sum())
    return 1 - wrong / spread


def sklearn_ridge(X: Rows, Y: Rows, penalty: float) -> Callable:
    """Ridge of scikit-learn."""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=penalty, solver="svd").fit(X, Y).predict


def augmented_ridge(X: Rows, Y: Rows, penalty: float) -> Callable:
    """Ridge as least squares on rows augmented by sqrt(penalty) times the identity."""
    d = X.shape[1]
    left = np.concatenate([_centred(X), np.sqrt(penalty) * np.eye(d)])
    W = np.linalg.lstsq(left, np.concatenate([_centred(Y), np.zeros((d, Y.shape[1]))]), rcond=None)[0]
    return lambda rows: (rows - X.mean(0)) @ W + Y.mean(0)


# --- Canonical correlations --------------------------------------------------------------------------


def angle_correlations(X: Rows, Y: Rows) -> Rows:
    """Canonical correlations as cosines of scipy's principal angles."""
    return np.cos(scipy.linalg.subspace_angles(_centred(X), _centred(Y)))


def zoo_correlations(X: Rows, Y: Rows) -> Rows:
    """Canonical correlations of the variables that cca-zoo 4.0.1 finds."""
    from cca_zoo.linear import CCA

    k = min(X.shape[1], Y.shape[1])
    pair = [_centred(X), _centred(Y)]
    scores = CCA(n_components=k).fit(pair).transform(pair)
    return np.array([np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1] for i in range(k)])


def truncated(X: Rows, share: float = 0.99) -> Rows:
    """Principal component scores that hold a share of variance, by scikit-learn."""
    from sklearn.decomposition import PCA

    full = PCA(svd_solver="full").fit(X)
    keep = int(np.searchsorted(np.cumsum(full.explained_variance_ratio_), share) + 1)
    return full.transform(X)[:, :keep]


def truncated_svd(X: Rows, share: float = 0.99) -> Rows:
    """The same by numpy's singular value decomposition."""
    left, values, _ = np.linalg.svd(_centred(X), full_matrices=False)
    keep = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), share) + 1)
    return left[:, :keep] * values[:keep]


def paper_pwcca(X: Rows, Y: Rows) -> float:
    """PWCCA of Morcos et al. 2018, section 2, from orthonormal bases of the rows."""
    Q, P = np.linalg.qr(_centred(X))[0], np.linalg.qr(_centred(Y))[0]
    left, rho, _ = np.linalg.svd(Q.T @ P, full_matrices=False)
    alpha = np.abs((Q @ left).T @ X).sum(1)
    return float(alpha @ rho / alpha.sum())


# --- Subspaces, drift, neighbours, distances ----------------------------------------------------------


def angle_overlap(X: Rows, Y: Rows, rank: int = 10) -> float:
    """Mean squared cosine of scipy's angles between leading right singular vectors."""
    bases = [np.linalg.svd(_centred(rows), full_matrices=False)[2][:rank].T for rows in (X, Y)]
    return float((np.cos(scipy.linalg.subspace_angles(*bases)) ** 2).mean())


def sklearn_overlap(X: Rows, Y: Rows, rank: int = 10) -> float:
    """The same from scikit-learn's principal components."""
    from sklearn.decomposition import PCA

    first, second = (PCA(rank, svd_solver="full").fit(rows).components_ for rows in (X, Y))
    return float(((first @ second.T) ** 2).sum() / rank)


def movement_energy(X: Rows, Y: Rows) -> Rows:
    """Energies of the movement from the singular values of Y - X."""
    return np.linalg.svd(Y - X, compute_uv=False) ** 2


def torch_energy(X: Rows, Y: Rows) -> Rows:
    """The same from torch's eigenvalues of the rows' Gram matrix."""
    D = torch.from_numpy(Y - X)
    return torch.linalg.eigvalsh(D @ D.T).flip(0)[: X.shape[1]].clamp(min=0).numpy()


def shift_share(X: Rows, Y: Rows) -> float:
    """Share of the movement that is one constant shift, from the rows."""
    D = Y - X
    return float(len(D) * (D.mean(0) ** 2).sum() / (D**2).sum())


def shift_share_by_variance(X: Rows, Y: Rows) -> float:
    """The same as what is left when the movement's variance is taken off its energy."""
    D = Y - X
    return float(1 - D.var(0).sum() / np.linalg.norm(D) ** 2 * len(D))


def neighbour_overlap(X: Rows, Y: Rows, find: Callable[[Rows, int], Rows], k: int = 10) -> float:
    """Mean share of common neighbours minus chance, neighbours found by `find`."""
    pairs = zip(find(X, k), find(Y, k), strict=True)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]) - k / (len(X) - 1))


def sklearn_neighbours(X: Rows, k: int) -> Rows:
    """Neighbours by scikit-learn's ball tree."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="ball_tree").fit(X).kneighbors(return_distance=False)


def tree_neighbours(X: Rows, k: int) -> Rows:
    """Neighbours by scipy's k-d tree."""
    return scipy.spatial.cKDTree(X).query(X, k + 1)[1][:, 1:]


def rsatoolbox_value(X: Rows, Y: Rows, dissimilarity: str, method: str) -> float:
    """Correlation of dissimilarity matrices by rsatoolbox 0.3.2."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    first, second = (calc_rdm(Dataset(rows), method=dissimilarity) for rows in (X, Y))
    return float(compare(first, second, method)[0, 0])


def scipy_rsa(X: Rows, Y: Rows) -> float:
    """Spearman correlation of scipy's pairwise correlation distances."""
    return float(scipy.stats.spearmanr(pdist(X, "correlation"), pdist(Y, "correlation")).statistic)


# --- GULP ------------------------------------------------------------------------------------------------


def gulp_primal(X: Rows, Y: Rows, penalty: float = 1e-2) -> float:
    """GULP as the norm of the difference of the two ridge smoothers on rows (n x n)."""
    n = len(X)
    smoothers = []
    for rows in (X, Y):
        Z = _centred(rows) / np.sqrt((_centred(rows) ** 2).sum() / n)
        smoothers.append(Z @ np.linalg.inv(Z.T @ Z / n + penalty * np.eye(Z.shape[1])) @ Z.T / n)
    return float(np.linalg.norm(smoothers[0] - smoothers[1]))


def gulp_kernel(X: Rows, Y: Rows, penalty: float = 1e-2) -> float:
    """The same from the eigenvalues of Gram matrices (kernel ridge)."""
    smoothers = []
    for rows in (X, Y):
        K = _gram(_centred(rows))
        values, vectors = scipy.linalg.eigh(K / np.trace(K))
        smoothers.append((vectors * (values / (values + penalty))) @ vectors.T)
    return float(np.linalg.norm(smoothers[0] - smoothers[1]))

"""Two spectra that find the directions a fine-tune weakened or lost, with no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.probes.similarity.accumulation import Gathered
from taxlens.probes.spectra.components import PENALTY, VARIANCE, Components, components, gain_map, loss_matrix
from taxlens.probes.spectra.null import null_draws

DRAWS = 20
RANKS = 32
ENOUGH = 16
LEAST = (
    1e-3  # a direction this close to its band is as the penalty leaves it: a model against itself has no noise at all
)


def gain_spectrum(basis: Components, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gains [r], most weakened first, and their directions [r, d] in base space.

    Singular values of the ridge map from base components to aligned rows: 1 where a direction of base is
    carried over at full size (also if rotated), g where it is scaled by g, above 1 where amplified.

    Args:
        basis: base components.
        C: cross-covariance of base and aligned [d, d_y].
    """
    left, values, _ = np.linalg.svd(gain_map(basis, C), full_matrices=False)
    return values[::-1], _signed((basis.vectors @ left).T[::-1])


def loss_spectrum(basis: Components, C: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses [r] in [0, 1], largest first, and their directions [r, d] in base space.

    Generalised eigenvalues of A - C (B + penalty)^-1 C' against A on the base components: the share of a
    base variable's variance that no linear map of aligned recovers. The direction is the pattern along
    which base varies with that variable (A w for the readout w): what is missing from aligned.

    Args:
        basis: base components.
        C: cross-covariance of base and aligned [d, d_y].
        B: aligned covariance [d_y, d_y].
    """
    values, vectors = np.linalg.eigh(loss_matrix(basis, C, B))
    patterns = (basis.vectors * np.sqrt(basis.values)) @ vectors[:, ::-1]
    return np.clip(values[::-1], 0, 1), _signed((patterns / np.linalg.norm(patterns, axis=0)).T)


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """One spectrum of one layer: rank 0 is the most weakened (gain) or the most lost (loss) direction.

    Args:
        name: "gain" or "loss".
        layer: block index.
        site: as in the store.
        values: [r] in order of rank.
        null_low: [r] lower end of the null band at each rank.
        null_high: [r] upper end.
        directions: [r, d] unit rows in base space.
        n_items: rows behind it.
    """

    name: str
    layer: int
    site: str
    values: np.ndarray
    null_low: np.ndarray
    null_high: np.ndarray
    directions: np.ndarray
    n_items: int

    @property
    def outside(self) -> np.ndarray:
        """Leading ranks [k] beyond everything the null shows: its most extreme rank's band, on the side of loss.

        Rank by rank the band holds 95 % of null values, so some inner ranks leave it by chance, and one lost
        direction moves the ranks after it by one; neither counts here, nor does anything within .001.
        """
        if self.name == "gain":
            beyond = self.values < self.null_low[0] - LEAST
        else:
            beyond = self.values > self.null_high[0] + LEAST
        return np.arange(len(beyond) if beyond.all() else int(np.argmin(beyond)))

    def direction(self, rank: int) -> Direction:
        """Return the direction of a rank, with its value and band as provenance.

        Raises:
            UsageError: no such rank.
        """
        if not 0 <= rank < len(self.values):
            rows = [("rank", rank), ("ranks", f"0 to {len(self.values) - 1}")]
            raise UsageError(explain(f"the {self.name} spectrum has no such rank.", rows))
        source = {
            "spectrum": self.name,
            "rank": rank,
            "value": float(self.values[rank]),
            "null": (float(self.null_low[rank]), float(self.null_high[rank])),
            "n_items": self.n_items,
        }
        return Direction(self.directions[rank], site=self.site, layer=self.layer, source=source)


@dataclass(frozen=True, slots=True)
class Spectra(Result):
    """Gain and loss spectra of one or more layers; add two to join them."""

    spectra: tuple[Spectrum, ...]
    notes: tuple[str, ...] = ()

    figure: ClassVar[str] = "spectra"

    def __add__(self, other: Spectra) -> Spectra:
        return Spectra(self.spectra + other.spectra, tuple(dict.fromkeys(self.notes + other.notes)))

    def get(self, name: str, layer: int) -> Spectrum:
        """Return the "gain" or "loss" spectrum of a layer.

        Raises:
            UsageError: if it was not computed, with the reason where there is one.
        """
        for spectrum in self.spectra:
            if (spectrum.name, spectrum.layer) == (name, layer):
                return spectrum
        rows = [("computed", ", ".join(f"{s.name} {s.layer}" for s in self.spectra)), *_noted(self.notes)]
        raise UsageError(explain(f"no {name} spectrum of layer {layer}.", rows))

    def to_frame(self, *, ranks: int = RANKS) -> pd.DataFrame:
        """Return the columns of spectra.csv (layer, spectrum, rank, value, null_low, null_high) and n_items."""
        frames = [
            pd.DataFrame(
                {
                    "layer": s.layer,
                    "spectrum": s.name,
                    "rank": np.arange(len(s.values[:ranks])),
                    "value": s.values[:ranks],
                    "null_low": s.null_low[:ranks],
                    "null_high": s.null_high[:ranks],
                    "n_items": s.n_items,
                }
            )
            for s in self.spectra
        ]
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        parts = []
        for name in dict.fromkeys(s.name for s in self.spectra):
            pick = min if name == "gain" else max
            s = pick((s for s in self.spectra if s.name == name), key=lambda s: s.values[0])
            band = f"[{s.null_low[0]:.3g}, {s.null_high[0]:.3g}]"
            parts.append(f"{name} {s.values[0]:.3g} (null {band}) at layer {s.layer}")
        return f"Spectra({'; '.join(parts)}; n={max(s.n_items for s in self.spectra)})"


def spectra(
    gathered: Gathered,
    *,
    layer: int = 0,
    site: str = "",
    variance: float = VARIANCE,
    penalty: float = PENALTY,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> Spectra:
    """Return the gain and loss spectra of a layer with null bands, and the directions behind them.

    Gain sees directions that were weakened, however little; loss sees those that were erased so far that
    no linear map of aligned brings them back, and is blind to partial weakening: read both. Neither sees
    what is not linear. Both are taken on the principal components that hold 99 % of base variance, so a
    concept of much smaller variance is not looked at. Null band: the same base rows plus the residuals of
    the fitted map with their signs flipped by fold of groups (what noise of this size would show): where
    one more such value would lie at each rank.

    Args:
        gathered: what `gather` returned for the layer.
        layer: block index, for the table and the directions.
        site: for the directions.
        variance: share of base variance that the components hold.
        penalty: ridge penalty in mean eigenvalues; above 1e-3 it reads as loss what is not.
        draws: sign flips behind the band, at least 2.
        level: coverage of the band.
        seed: of the flips.

    Returns:
        Spectra: the loss spectrum is left out, and a note says why, with fewer than 2 rows a dimension.

    Raises:
        UsageError: fewer than 8 rows, or models of different width.

    Example:
        >>> from taxlens.probes.similarity.accumulation import gather
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(400, 4))
        >>> Y = X * [1, 1, 0.5, 1]
        >>> round(spectra(gather((X, Y))).get("gain", 0).values[0], 3)
        0.5
    """
    total = gathered.total
    if total.n < 8:
        rows = [("rows", total.n), ("expected", "at least 8, better 16 a dimension")]
        raise UsageError(explain("too few rows for spectra.", rows))
    if gathered.widths[0] != gathered.widths[1]:
        rows = [("base", f"d = {gathered.widths[0]}"), ("aligned", f"d = {gathered.widths[1]}")]
        raise UsageError(explain("spectra need equal widths.", rows, "linear_r2 compares spaces of any width."))
    A, B, C = total.cov_xx(), total.cov_yy(), total.cov_xy()
    basis = components(A, B, total.n, variance=variance, penalty=penalty)
    with_loss = total.n >= 2 * len(B)
    found = {"gain": gain_spectrum(basis, C)}
    if with_loss:
        found["loss"] = loss_spectrum(basis, C, B)
    drawn = null_draws(gathered, basis, draws=draws, seed=seed, with_loss=with_loss)
    made = []
    for name, (values, directions) in found.items():
        low, high = _band(drawn[name], level)
        made.append(Spectrum(name, layer, site, values, low, high, directions, total.n))
    return Spectra(tuple(made), _notes(total.n, len(B), with_loss))


def _band(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Where one more null value would lie at each rank [r], from draws [draws, r]: Student's prediction."""
    draws = len(drawn)
    reach = -stdtrit(draws - 1, (1 - level) / 2) * drawn.std(0, ddof=1) * np.sqrt(1 + 1 / draws)
    return np.maximum(drawn.mean(0) - reach, 0), drawn.mean(0) + reach


def _notes(n: int, d: int, with_loss: bool) -> tuple[str, ...]:
    if not with_loss:
        text = f"loss spectrum left out: {n} rows are fewer than 2 a dimension (d = {d}), all would be predicted"
        return (text,)
    return (f"{n} rows are fewer than {ENOUGH} a dimension (d = {d}): bands are wide",) if n < ENOUGH * d else ()


def _noted(notes: tuple[str, ...]) -> list[tuple[str, object]]:
    return [("note", note) for note in notes]


def _signed(directions: np.ndarray) -> np.ndarray:
    """Turn each row so that its largest entry is positive: a sign that does not depend on the solver."""
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    return directions * np.where(largest < 0, -1.0, 1.0)

"""What the spectra's directions beyond the null are called: tokens, probes, items."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from taxlens.activations.hooks.site_registry import stream_sites
from taxlens.activations.store.store import Store
from taxlens.analysis.directions.naming import Vocabulary, alike_probes, extreme_items, promoted_tokens
from taxlens.core.direction import Direction
from taxlens.probes.similarity.accumulation import Gathered
from taxlens.probes.spectra.spectra import Spectra


def leading_directions(spectra: Spectra, *, top: int) -> list[Direction]:
    """Return the directions beyond the null, most weakened or lost first, at most `top` of each spectrum."""
    return [one.direction(int(rank)) for one in spectra.spectra for rank in one.outside[:top]]


def name_directions(
    store: Store,
    index: np.ndarray,
    groups: np.ndarray,
    spectra: Spectra,
    gathered: Gathered,
    top: int,
    probes: Mapping[str, Direction],
    vocabulary: Vocabulary | None,
) -> pd.DataFrame:
    """Return directions.csv of one layer (without suite, template and site), empty where nothing left its band.

    Args:
        store: where the rows are.
        index: [n] row numbers behind the spectra.
        groups: [n] their groups: one item a group is named at each end.
        spectra: of one layer.
        gathered: what the spectra were computed from.
        top: directions of each spectrum.
        probes: base's probe directions at the same address, by name.
        vocabulary: base's unembedding, or None for no tokens.
    """
    directions = leading_directions(spectra, top=top)
    if not directions:
        return pd.DataFrame()
    site, layer = directions[0].site, directions[0].layer
    X = store.read(site, layer, model="base", rows=index).reshape(len(index), -1)
    ids = _item_names(store.rows.iloc[index])
    frames = []
    for direction in directions:
        named = extreme_items(direction, X, ids, groups=list(groups))
        if probes:
            named = alike_probes(direction, probes, covariance=gathered.total.cov_xx()) + named
        if vocabulary is not None and site in stream_sites():
            named = promoted_tokens(direction, vocabulary) + named
        where = {"layer": layer, "spectrum": direction.source["spectrum"], "rank": direction.source["rank"]}
        frames.append(named.to_frame().assign(**where))
    return pd.concat(frames, ignore_index=True)


def _item_names(rows: pd.DataFrame) -> list[str]:
    """SUITE/ITEM (ids that start with their suite's name stand as they are), and gold or foil where it is one."""
    out = []
    for suite, item, kind in zip(rows["suite"], rows["item"], rows["kind"], strict=True):
        name = str(item) if str(item).startswith(f"{suite}/") else f"{suite}/{item}"
        out.append(f"{name} ({kind})" if kind in ("gold", "foil") else name)
    return out

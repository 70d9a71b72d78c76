"""The leading units of an attribution, put into tables: what they write and read, how sure their rank is, their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxlens.analysis.readings.reading_tables import ATTRIBUTION_READING, ATTRIBUTION_UNITS
from taxlens.analysis.readings.triples import TripleReading, clusters, read_triples, stability
from taxlens.analysis.weights.export_tables import ATTRIBUTION_NAMES
from taxlens.analysis.weights.external_names import export_units
from taxlens.analysis.weights.units import difference_of, level_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.path.attribution import Attribution


def reading_tables(
    pair: ModelPair, suites: Sequence[Suite], found: Attribution, *, metric: str, top: int = 2, tokens: int = 6
) -> dict[str, pd.DataFrame]:
    """Return attribution_units and attribution_reading: the leading singular triples of each suite, read.

    A triple whose singular value is within 5 % of its neighbours' cannot be told from them: `cluster` names all of
    them and `cluster_effect` is their sum, which means something. `same_sign` and `in_top` say in how many draws of
    groups the unit kept its sign, and its place among the ten largest.

    Args:
        pair: the two checkpoints.
        suites: the attributed suites, with the attributed items.
        found: their attribution, at the singular level.
        metric: whose effects rank the triples.
        top: triples a suite.
        tokens: tokens at each extreme.

    Returns:
        Two tables; sides of attribution_reading are "writes up", "writes down" (token: its id), "reads high" and
        "reads low" (token: its place in the item).
    """
    units, readings = [], []
    for suite in suites:
        stable = stability(found, suite.name, metric, level="singular").set_index("component")
        chosen = [name for name in stable.index if level_of([name]) == "singular"][:top]
        named = {"suite": suite.name, "template": found.template}
        for one in read_triples(pair, chosen, suite, top=tokens, template=found.template):
            facts = {"metric": metric, "component": one.unit, "sigma": one.sigma}
            facts |= stable.loc[one.unit, ["effect", "same_sign", "in_top"]].to_dict()
            units.append(named | facts | _cluster(pair, found, suite.name, metric, one.unit))
            readings += [named | {"component": one.unit} | row for row in _sides(one)]
    return {
        "attribution_units": ATTRIBUTION_UNITS.frame(units),
        "attribution_reading": ATTRIBUTION_READING.frame(readings),
    }


def names_table(pair: ModelPair, found: Attribution, *, singular: Sequence[str] = ()) -> pd.DataFrame:
    """Return attribution_names: where the units of a table live, under Hugging Face's and TransformerLens's names.

    Args:
        pair: the two checkpoints.
        found: an attribution; its components and heads are listed, as far as they changed.
        singular: triples to list beside them.

    Returns:
        Columns level, component, parameter, rows, columns, triple, transformer_lens, hook.
    """
    difference = difference_of(pair)
    levels = next(iter(found.suites.values())).units
    frames = []
    for level in ("component", "head", "singular"):
        names = list(singular) if level == "singular" else list(levels.get(level, ()))
        names = [name for name in names if name in difference.units(level)]  # rows without weights live nowhere
        moved = [name for name in names if difference.moved(difference.unit(name, level=level))]
        frames.append(export_units(pair, moved, level=level).drop(columns="coefficient").assign(level=level))
    table = pd.concat(frames, ignore_index=True).rename(columns={"unit": "component"})
    return table[list(ATTRIBUTION_NAMES.names)]


def _cluster(pair: ModelPair, found: Attribution, suite: str, metric: str, unit: str) -> dict[str, object]:
    part = difference_of(pair).unit(unit, level="singular").parts[0]
    assert part.triple is not None
    number = clusters(pair, part.module)
    stem = unit.rsplit(".", 1)[0]
    members = [f"{stem}.s{k}" for k in np.flatnonzero(number == number[part.triple])]
    names, values = found.effects(suite, metric, "singular")
    place = {name: n for n, name in enumerate(names)}
    effect = float(values[:, [place[name] for name in members]].mean(axis=0).sum())
    return {"cluster_size": len(members), "cluster": " ".join(members), "cluster_effect": effect}


def _sides(one: TripleReading) -> list[dict[str, object]]:
    half = len(one.writes) // 2
    parts = {"writes up": one.writes.iloc[:half], "writes down": one.writes.iloc[half:][::-1]}
    rows = [
        {"side": side, "rank": rank, "item": "", "token": row.token, "text": row.text, "value": row.logit}
        for side, part in parts.items()
        for rank, row in enumerate(part.itertuples(), start=1)
    ]
    half = (len(one.reads) + 1) // 2
    for side, part in {"reads high": one.reads.iloc[:half], "reads low": one.reads.iloc[half:][::-1]}.items():
        rows += [
            {"side": side, "rank": rank, "item": row.item, "token": row.token, "text": row.text, "value": row.value}
            for rank, row in enumerate(part.itertuples(), start=1)
        ]
    return rows

"""What a latent may be about: contexts in which it is strongest, and tokens that its decoder writes towards.

Nothing is named by a language model: the contexts are the suite's own, the tokens those that the direction raises or
lowers through the output head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from taxlens.analysis.directions.naming import Vocabulary, promoted_tokens
from taxlens.analysis.features.change_codes import codes_in_use
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.feature_tables import FEATURES_CONTEXTS, FEATURES_NAMES
from taxlens.analysis.features.give_back import SuiteStreams
from taxlens.core.direction import Direction

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel

BEFORE, AFTER = 8, 4
"""Tokens of context before and after the one at which a latent is strongest."""


def names_frame(
    streams: SuiteStreams,
    dictionary: Dictionary,
    latents: Sequence[int] | np.ndarray,
    *,
    name: str,
    template: str,
    top: int = 5,
) -> pd.DataFrame:
    """Rows of features_names.csv: the strongest contexts of some latents, one an item, and their decoders' tokens.

    Args:
        streams: the suite in both models.
        dictionary: the dictionary.
        latents: which.
        name, template: for the table.
        top: contexts, and tokens at either end, of each.
    """
    rows: list[tuple[object, ...]] = []
    base = streams.pair.base
    vocabulary = Vocabulary.of_model(base)
    strength = _codes(streams, dictionary, latents).max(0)
    at = streams.read.nonzero()[:, 0].numpy()
    for number, latent in enumerate(latents):
        key = (streams.suite.name, template, name, str(int(latent)))
        rows += [(*key, "context", *one) for one in _contexts(streams, strength[:, number], at, base, top)]
        vector = dictionary.directions(0)[int(latent)].double().numpy()
        if np.linalg.norm(vector) > 0:
            direction = Direction(vector, site=dictionary.site, layer=dictionary.layer)
            rows += [(*key, *one) for one in _tokens(direction, vocabulary, top)]
    return FEATURES_NAMES.frame(rows)


def contexts_frame(
    streams: SuiteStreams,
    dictionary: Dictionary,
    latents: Sequence[int] | np.ndarray,
    *,
    name: str,
    template: str,
    top: int = 3,
) -> pd.DataFrame:
    """Rows of features_contexts.csv: the strongest contexts of some latents token by token, with both models' codes.

    Args:
        streams, dictionary, latents, name, template: as for `names_frame`.
        top: contexts of each.
    """
    rows: list[tuple[object, ...]] = []
    decode = streams.pair.base.tokenizer.decode
    codes = _codes(streams, dictionary, latents)
    at = streams.read.nonzero()[:, 0].numpy()
    place_of = np.full(len(streams.ids), -1)
    place_of[at] = np.arange(len(at))
    for number, latent in enumerate(latents):
        for rank, position in enumerate(_strongest(streams, codes.max(0)[:, number], at, top), 1):
            for where in _window(streams, position):
                place = place_of[where]
                held = codes[:, place, number] if place >= 0 else (np.nan, np.nan)
                rows.append((
                    streams.suite.name, template, name, str(int(latent)), rank, int(where - position),
                    decode([int(streams.ids[where])]) or None, float(held[0]), float(held[1]),
                ))  # fmt: skip
    return FEATURES_CONTEXTS.frame(rows)


def _codes(streams: SuiteStreams, dictionary: Dictionary, latents: Sequence[int] | np.ndarray) -> np.ndarray:
    """Codes of base and aligned at every position read, [2, read, latents]; of the change in the second alone."""
    chosen = torch.as_tensor(np.asarray(latents, dtype=np.int64))
    found = []
    for piece in streams.read.nonzero()[:, 0].split(1024):
        both = codes_in_use(dictionary, streams.base[piece].float(), streams.aligned[piece].float())
        found.append(torch.stack(both)[:, :, chosen])
    return torch.cat(found, dim=1).numpy()


def _window(streams: SuiteStreams, position: int) -> range:
    """Positions of the same row around one."""
    first = position - min(BEFORE, int(streams.place[position]))
    last = position
    while (
        last + 1 < len(streams.ids) and last - position < AFTER and streams.place[last + 1] == streams.place[last] + 1
    ):
        if not streams.real[last + 1]:
            break
        last += 1
    return range(first, last + 1)


def _strongest(streams: SuiteStreams, strength: np.ndarray, at: np.ndarray, top: int) -> list[int]:
    """Positions at which a latent is strongest, one an item, the strongest first."""
    found: dict[int, int] = {}
    for place in np.argsort(-strength, kind="stable"):
        if strength[place] <= 0 or len(found) == top:
            break
        found.setdefault(int(streams.item[at[place]]), int(at[place]))
    return list(found.values())


def _contexts(
    streams: SuiteStreams, strength: np.ndarray, at: np.ndarray, base: LoadedModel, top: int
) -> list[tuple[object, ...]]:
    """(rank, item, text, value) of the strongest positions, one an item; the token itself in double brackets."""
    out: list[tuple[object, ...]] = []
    value = dict(zip(at.tolist(), strength.tolist()))
    for position in _strongest(streams, strength, at, top):
        start = position - min(BEFORE, int(streams.place[position]))
        before = base.tokenizer.decode(streams.ids[start:position].tolist())
        token = base.tokenizer.decode([int(streams.ids[position])])
        text = " ".join(f"{before}[[{token}]]".split())
        out.append((len(out) + 1, streams.suite.items[int(streams.item[position])].id, text, float(value[position])))
    return out


def _tokens(direction: Direction, vocabulary: Vocabulary, top: int) -> list[tuple[object, ...]]:
    """(kind, rank, item, text, value) of the tokens that a direction raises and lowers most."""
    found = promoted_tokens(direction, vocabulary, top=top)
    out: list[tuple[object, ...]] = []
    for kind, end in (("raises", "+"), ("lowers", "-")):
        ends = [one for one in found.names if one.end == end]
        out += [(kind, rank, None, one.name, float(one.value)) for rank, one in enumerate(ends, 1)]
    return out

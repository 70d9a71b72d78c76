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
from taxlens.analysis.features.feature_tables import FEATURES_NAMES
from taxlens.analysis.features.give_back import SuiteStreams
from taxlens.core.direction import Direction

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel

BEFORE = 8
"""Tokens of context before the one at which a latent is strongest."""


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
    strength = _strength(streams, dictionary, latents)
    at = streams.read.nonzero()[:, 0].numpy()
    for number, latent in enumerate(latents):
        key = (streams.suite.name, template, name, str(int(latent)))
        rows += [(*key, "context", *one) for one in _contexts(streams, strength[:, number], at, base, top)]
        vector = dictionary.directions(0)[int(latent)].double().numpy()
        if np.linalg.norm(vector) > 0:
            direction = Direction(vector, site=dictionary.site, layer=dictionary.layer)
            rows += [(*key, *one) for one in _tokens(direction, vocabulary, top)]
    return FEATURES_NAMES.frame(rows)


def _strength(streams: SuiteStreams, dictionary: Dictionary, latents: Sequence[int] | np.ndarray) -> np.ndarray:
    """The larger code of the two models at every position read, [read, latents]."""
    chosen = torch.as_tensor(np.asarray(latents, dtype=np.int64))
    found = []
    for piece in streams.read.nonzero()[:, 0].split(1024):
        first, second = codes_in_use(dictionary, streams.base[piece].float(), streams.aligned[piece].float())
        found.append(torch.maximum(first, second)[:, chosen])
    return torch.cat(found).numpy()


def _contexts(
    streams: SuiteStreams, strength: np.ndarray, at: np.ndarray, base: LoadedModel, top: int
) -> list[tuple[object, ...]]:
    """(rank, item, text, value) of the strongest positions, one an item; the token itself in double brackets."""
    out: list[tuple[object, ...]] = []
    seen: set[int] = set()
    for place in np.argsort(-strength, kind="stable"):
        position = int(at[place])
        item = int(streams.item[position])
        if strength[place] <= 0 or len(out) == top:
            break
        if item in seen:
            continue
        seen.add(item)
        start = position - min(BEFORE, int(streams.place[position]))
        before = base.tokenizer.decode(streams.ids[start:position].tolist())
        token = base.tokenizer.decode([int(streams.ids[position])])
        text = " ".join(f"{before}[[{token}]]".split())
        out.append((len(out) + 1, streams.suite.items[item].id, text, float(strength[place])))
    return out


def _tokens(direction: Direction, vocabulary: Vocabulary, top: int) -> list[tuple[object, ...]]:
    """(kind, rank, item, text, value) of the tokens that a direction raises and lowers most."""
    found = promoted_tokens(direction, vocabulary, top=top)
    out: list[tuple[object, ...]] = []
    for kind, end in (("raises", "+"), ("lowers", "-")):
        ends = [one for one in found.names if one.end == end]
        out += [(kind, rank, None, one.name, float(one.value)) for rank, one in enumerate(ends, 1)]
    return out

"""One walk of the weight path, read with a dictionary: from a pair, suites and a dictionary to the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.sampling import at_most
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.feature_account import FeatureAccount, SuiteFeatures
from taxlens.analysis.features.latent_effects import ItemEffects, LatentReader
from taxlens.analysis.features.stream_tap import StreamTap, Taps
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.chain_rule import ScoreMetric
from taxlens.core.errors import CheckError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.path.attribution import SuiteEffects


def _log_odds(scores: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    right = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, gold.expand(scores.shape[:-1])[..., None], True)
    others = torch.logsumexp(scores.masked_fill(right, -torch.inf), dim=-1)
    return scores.masked_fill(~right, -torch.inf).amax(-1) - others


LOG_ODDS = ScoreMetric(_log_odds)
"""Log-odds of the gold choice among an item's choices, nats: it moves where a probability is saturated."""


def account_features(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    dictionary: Dictionary,
    *,
    name: str = "",
    **options: Any,
) -> FeatureAccount:
    """Return the account of suites' taxes in the latents of one dictionary (see `account_dictionaries`).

    Args:
        pair: the two checkpoints; left as they are.
        suites: suites whose items have choices.
        dictionary: of the residual stream: of aligned minus base, of the base, or a crosscoder.
        name: of the dictionary, for tables; by default where it came from.
        options: as for `account_dictionaries`.

    Example:
        >>> account_features(pair, facts, dictionary).ranked("facts")                   # doctest: +SKIP
    """
    named = name or dictionary.source or "dictionary"
    return account_dictionaries(pair, suites, {named: dictionary}, **options)[named]


def account_dictionaries(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    dictionaries: Mapping[str, Dictionary],
    *,
    template: str = "plain",
    metrics: Sequence[str] = ("probability", "nll"),
    reading: str = "least_squares",
    listed: int = 40,
    bootstrap: int = 2000,
    seed: int = 0,
    **options: Any,
) -> dict[str, FeatureAccount]:
    """Return the account of suites' taxes in the latents of each dictionary, all off one walk of the weight path.

    Args:
        pair: the two checkpoints; left as they are.
        suites: suites whose items have choices.
        dictionaries: by name; each of the residual stream somewhere.
        template: "plain" or "chat".
        metrics: metrics of the tax; "log_odds" is added. Latents are ranked by the first.
        reading: "least_squares" (the change coded on the decoders in use), "encoder" (differences of codes) or
            "preactivation".
        listed: latents that tables list one by one.
        bootstrap, seed: draws of the intervals, and the seed.
        options: of `analysis.path.attribute` (tolerance, max_gradients, items, levels, batch_tokens, progress).

    Raises:
        UsageError: a transcoder, or a site that is not the whole stream.
        CheckError: a dictionary of another width.

    References:
        Marks et al. 2403.19647 (error nodes); Minder et al. 2504.02922; the path: `analysis.path.attribute`.
    """
    whole = [suites] if hasattr(suites, "items") else list(suites)  # type: ignore[arg-type]
    asked = [at_most(suite, options.get("items", "all"), seed=seed) for suite in whole]
    functions = dict(options.pop("functions", None) or {}) | {"log_odds": LOG_ODDS}
    named = tuple(dict.fromkeys((*metrics, "log_odds")))
    bos = pair.base.tokenizer.bos_token_id
    readers, taps = {}, []
    for name, dictionary in dictionaries.items():
        check_fits(pair, dictionary, name)
        measured = {m: functions.get(m, m) for m in named}
        readers[name] = LatentReader(dictionary, reading, measured, bos=-1 if bos is None else int(bos), seed=seed)
        taps.append(
            StreamTap(
                pair.base.anatomy, Address(dictionary.site, dictionary.layer), readers[name].take, readers[name].found
            )
        )
    walked = {"neurons": 0, "perplexity": False, "tokens": False} | options | {"items": "all"}
    found = attribute(
        pair, asked, template=template, metrics=named, functions=functions, bootstrap=bootstrap, seed=seed,
        tap=Taps(taps), **walked,
    )  # fmt: skip
    accounts = {}
    for name, dictionary in dictionaries.items():
        address = Address(dictionary.site, dictionary.layer)
        kept = {
            one.name: _suite(one, few, found.suites[one.name], readers[name], address) for one, few in zip(whole, asked)
        }
        ids = {int(i) for one in kept.values() for held in one.tokens.values() for i in held[2]}
        words = {i: pair.base.tokenizer.decode([i]) for i in ids}
        accounts[name] = FeatureAccount(
            template, name, dictionary, reading, kept, found, listed, bootstrap, seed, words
        )
    return accounts


def check_fits(pair: ModelPair, dictionary: Dictionary, name: str) -> None:
    """Refuse a dictionary that cannot be read on a pair, by what its files say.

    Raises:
        CheckError: it is of another width, or its files do not say where it reads.
    """
    anatomy = pair.base.anatomy
    if dictionary.d_in != anatomy.d_model:
        rows = [("dictionary", f"{name}: {dictionary.d_in} wide"), ("model", f"{anatomy.d_model} wide")]
        raise CheckError(explain("the dictionary is of another width than the model.", rows, "one of this model."))
    if not dictionary.site or dictionary.layer < 0:
        rows = [("dictionary", name), ("site", dictionary.site or "not said"), ("layer", dictionary.layer)]
        fix = "say its site and layer: features.dictionaries: [{path: ..., site: resid_post, layer: 7}]"
        raise CheckError(explain("the dictionary's files do not say where it reads.", rows, fix))


def _suite(suite: Suite, asked: Suite, effects: SuiteEffects, reader: LatentReader, address: Address) -> SuiteFeatures:
    """A suite's account; `asked` holds the items that were drawn from it and walked."""
    held = reader.found[suite.name]
    place, walked = ({item.id: number for number, item in enumerate(one.items)} for one in (suite, asked))
    places = np.array([place[item] for item in effects.items])
    items = [held[walked[item]] for item in effects.items]
    metrics = tuple(reader.metrics)
    width = reader.dictionary.width
    above = above_address(effects, address)
    coarse = all(one.coarse is not None for one in items)

    def summed(name: str) -> np.ndarray:
        out = np.zeros(width)
        for one in items:
            np.add.at(out, one.latents, getattr(one, name))
        return out

    return SuiteFeatures(
        suite=suite.name, items=effects.items, groups=effects.groups, places=places,
        taxes={m: effects.taxes[m] for m in metrics},
        values={m: _sparse(items, [one.values[n] for one in items], width) for n, m in enumerate(metrics)},
        coarse={
            m: np.asarray(_sparse(items, [one.coarse[n] for one in items], width).mean(axis=0)).ravel()
            if coarse else np.full(width, np.nan)
            for n, m in enumerate(metrics)
        },
        error={m: np.array([one.error[n] for one in items]) for n, m in enumerate(metrics)},
        excluded={m: np.array([one.excluded[n] for one in items]) for n, m in enumerate(metrics)},
        above={m: effects.values[m, "component"][:, above].sum(1) for m in metrics},
        apart={m: np.asarray(effects.apart.get(m, np.zeros(len(items)))) for m in metrics},
        coarse_error={m: float(np.mean([one.coarse_error[n] for one in items])) if coarse else np.nan for n, m in enumerate(metrics)},
        mass=summed("mass"), tokens_on=summed("tokens_on"), switched=summed("switched"), sizes=summed("sizes"),
        change=np.array([one.change for one in items]),
        excluded_change=np.array([one.excluded_change for one in items]),
        tokens={int(p): one.tokens for p, one in zip(places, items) if one.tokens is not None},
        gradients=effects.gradients, closed=effects.closed,
    )  # fmt: skip


def above_address(effects: SuiteEffects, address: Address) -> np.ndarray:
    """Which components lie above an address of the stream, bool [components]."""
    layers, kinds = np.asarray(effects.layers["component"]), np.array(effects.kinds["component"])
    names = np.array(effects.units["component"])
    outside = (layers < 0) & ((kinds == "unembed") | (kinds == "norm"))
    if address.site == "resid_post":
        return outside | (layers > address.layer)
    if address.site == "resid_pre":
        return outside | (layers >= address.layer)
    own = layers == address.layer
    if (own & (kinds == "norm")).any():
        rows = [("site", address.site), ("layer", address.layer), ("component", names[own & (kinds == "norm")][0])]
        raise CheckError(
            explain("a block's norms are one component and stand on both sides of this site.", rows, "resid_post")
        )
    return outside | (layers > address.layer) | (own & (kinds == "mlp"))


def _sparse(items: Sequence[ItemEffects], values: Sequence[np.ndarray], width: int) -> Any:
    rows = np.repeat(np.arange(len(items)), [len(one.latents) for one in items])
    columns = np.concatenate([one.latents for one in items])
    return sparse.csr_matrix((np.concatenate(values), (rows, columns)), shape=(len(items), width))

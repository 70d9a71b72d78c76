"""All that is said of the features of a pair: the account, and everything that it is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.account_run import account_dictionaries
from taxlens.analysis.features.cut_account import cut_account
from taxlens.analysis.features.feature_account import FeatureAccount
from taxlens.analysis.features.feature_claims import (
    against_shuffled,
    claims_frame,
    rounded,
    same_latents,
    unaligned_claims,
)
from taxlens.analysis.features.feature_controls import FeatureControls, control_features
from taxlens.analysis.features.feature_tables import FEATURE_TABLES, FEATURES
from taxlens.analysis.features.give_back import suite_streams
from taxlens.analysis.features.latent_components import component_frame
from taxlens.analysis.features.latent_names import contexts_frame, names_frame
from taxlens.analysis.features.latents_in_models import dictionary_frame, latents_frame
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.vocabularies import RIVALS

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.features.dictionaries.dictionary import Dictionary


@dataclass(frozen=True, slots=True, eq=False)
class FeatureReport(Result):
    """The accounts of a pair's suites in one or more dictionaries, with controls, rivals and both models' readings.

    Args:
        accounts: by dictionary.
        controls: by (dictionary, suite).
        tables: by name, all of `feature_tables.FEATURE_TABLES`.
    """

    figure: ClassVar[str] = "features"

    accounts: Mapping[str, FeatureAccount]
    controls: Mapping[tuple[str, str], FeatureControls]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Rows of features.csv."""
        return self.tables[FEATURES.name]

    def companions(self) -> dict[str, pd.DataFrame]:
        """Return the closure, which the figure draws beside the effects."""
        return {"features_closure": self.tables["features_closure"]}

    def __repr__(self) -> str:
        lines = [repr(account) for account in self.accounts.values()]
        for (name, suite), found in self.controls.items():
            metric = next(iter(found.taxes))
            best, share = found.best(metric)
            leading = next(one for one in found.given if one.what == "leading")
            returned = found.share(leading, metric)
            lines.append(
                f"{suite}, {name}: most returned by {best} ({share:.0%} of the tax); leading latents "
                f"{returned.value:.0%} [{returned.low:.0%}, {returned.high:.0%}] on items they were not chosen on"
            )
        return "\n".join(lines)


def report_features(
    pair: ModelPair,
    suites: Suite | Sequence[Suite],
    dictionaries: Mapping[str, Dictionary] | Dictionary,
    *,
    template: str = "plain",
    leading: int = 20,
    draws: int = 8,
    rivals: Sequence[str] = RIVALS,
    cut: bool = True,
    components: int = 3,
    component_items: int = 16,
    named: int = 20,
    unaligned: Mapping[str, LoadedModel] | None = None,
    unaligned_items: int = 16,
    bootstrap: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
    **options: Any,
) -> FeatureReport:
    """Return the account of suites' taxes in the latents of dictionaries, and all that it is judged by.

    Args:
        pair: the two checkpoints.
        suites: suites whose items have choices.
        dictionaries: one, or several by name; all are read off one walk of the weights.
        template: "plain" or "chat".
        leading: latents that are given back together.
        draws: control sets matched in mass; 0: no controls and no rivals.
        rivals: what is given back without a dictionary (`feature_controls.RIVALS`).
        cut: whether to take the account at the cut beside the account of the path.
        components: leading latents whose change is traced to components; 0: none.
        component_items: most items of that.
        named: latents that are listed in both models, with contexts and tokens.
        unaligned: models by name that stand in for the aligned one as controls, such as a harmless fine-tune of the
            base; the base with rounded weights is always one of them, unless `draws` is 0.
        unaligned_items: most items of a suite for these.
        bootstrap, seed: draws of intervals, and the seed.
        progress: told of every step.
        options: of `account_run.account_dictionaries` (metrics, reading, listed, items, max_gradients, ...).
    """
    asked = [suites] if hasattr(suites, "items") else list(suites)  # type: ignore[arg-type]
    by_name = dictionaries if isinstance(dictionaries, Mapping) else {dictionaries.source or "dictionary": dictionaries}
    accounts = account_dictionaries(
        pair, asked, by_name, template=template, bootstrap=bootstrap, seed=seed, progress=progress, **options
    )
    frames: dict[str, list[pd.DataFrame]] = {table.name: [] for table in FEATURE_TABLES}
    controls: dict[tuple[str, str], FeatureControls] = {}
    with progress.task("features", total=len(accounts) * len(asked), unit="accounts") as task:
        for name, account in accounts.items():
            frames["features"].append(account.to_frame())
            frames["features_closure"].append(account.closure_frame())
            frames["features_items"].append(account.items_frame())
            frames["features_tokens"].append(account.tokens_frame(asked))
            for suite in asked:
                beside, shuffled = _beside(pair, suite, account, named, components, component_items, seed)
                for table, frame in beside.items():
                    frames[table].append(frame)
                across, found = None, None
                if cut:
                    across = cut_account(pair, suite, account).to_frame()
                    frames["features_cut"].append(across)
                if draws:
                    found = control_features(
                        pair, suite, account, leading=leading, draws=draws, rivals=rivals, seed=seed
                    )
                    controls[name, suite.name] = found
                    frames["features_controls"].append(found.to_frame())
                told = {"dictionary": beside["features_dictionary"], "cut": across, "shuffled": shuffled}
                frames["features_claims"].append(claims_frame(suite.name, account, controls=found, **told))
                task.advance(1, note=f"{suite.name} by {name}")
    frames["features_claims"].append(same_latents(controls, accounts))
    if draws:
        others = {"the base with rounded weights": rounded(pair.base)} | dict(unaligned or {})
        options |= {"template": template, "bootstrap": 200, "seed": seed, "items": _fewer(options, unaligned_items)}
        quiet = unaligned_claims(pair, asked, accounts, others, leading=leading, progress=progress, **options)
        frames["features_claims"].append(quiet)
    return FeatureReport(accounts, controls, {t.name: t.check(t.join(frames[t.name])) for t in FEATURE_TABLES})


def _fewer(options: Mapping[str, Any], most: int) -> int:
    items = options.get("items", "all")
    return most if items == "all" else min(int(items), most)


def _beside(
    pair: ModelPair, suite: Suite, account: FeatureAccount, named: int, components: int, items: int, seed: int
) -> tuple[dict[str, pd.DataFrame], tuple[float, float, float]]:
    """Latents and dictionary in both models, names, components of the leading latents; and the lead over a shuffled twin."""
    found, dictionary = account.suites[suite.name], account.dictionary
    own = suite.subset(found.places.tolist())
    streams = suite_streams(pair, own, Address(dictionary.site, dictionary.layer), template=account.template)
    chosen = account.chosen(suite.name)[:named]
    told = {"name": account.name, "template": account.template}
    out = {"features_dictionary": dictionary_frame(streams, dictionary, **told)}
    if len(chosen):
        out["features_latents"] = latents_frame(streams, dictionary, chosen, seed=seed, **told)
        out["features_names"] = names_frame(streams, dictionary, chosen, **told)
        out["features_contexts"] = contexts_frame(streams, dictionary, chosen, **told)
    if components and len(chosen):
        out["features_components"] = component_frame(pair, suite, account, chosen[:components], items=items)
    kept = {item.id: place for place, item in enumerate(streams.suite.items)}
    places = np.array([kept[item] for item in found.items])
    shuffled = against_shuffled(streams, dictionary, found.groups, places, draws=account.draws, seed=account.seed)
    return out, shuffled

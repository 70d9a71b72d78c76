"""What every editor is given: the pair, training and validation items, and what must come back and what must stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from taxlens.activations.items.gold import check_one_right
from taxlens.activations.items.holdout import split_suite
from taxlens.activations.items.items import Suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.prompts import Prompting, one_prompting
from taxlens.analysis.scoring.evaluator import named
from taxlens.core.artifacts import sha256_text
from taxlens.core.errors import UsageError, explain
from taxlens.core.vocabularies import SPLIT_KEYS

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair

SEARCH = 200
"""Trials of an editor that searches, as heretic is published."""

Suites = Mapping[str, Suite]
"""Suites by name."""


@dataclass(frozen=True, eq=False)
class EditTask:
    """The same for every editor that is compared.

    Args:
        pair: the two checkpoints.
        taxed: suites whose loss is to be returned.
        harm: suite of harmful prompts (gold: the refusal): what alignment was for.
        harmless: suite of harmless prompts (gold: complying).
        train: by suite, the items that an editor is fitted on.
        validation: by suite, the items that settings are chosen on and training is stopped on.
        held: by suite, the items that the chosen setting is measured on.
        template: suite name to "plain" or "chat".
        unit: level of the units that editors of the update choose from.
        seed: of every draw.
        checkpoints: name to loaded model: earlier checkpoints of the same training, where there are any.
        search: trials of an editor that searches its settings by trial (heretic).
    """

    pair: ModelPair
    taxed: tuple[str, ...]
    harm: str
    harmless: str
    train: Suites
    validation: Suites
    held: Suites
    template: Mapping[str, str]
    unit: str = "singular"
    seed: int = 0
    checkpoints: Mapping[str, LoadedModel] = field(default_factory=dict)
    search: int = SEARCH

    def prompting(self, suite: Suite) -> Prompting:
        """How both models are asked the items of a part of a suite."""
        return one_prompting(self.pair, suite, self.template[suite.name])

    @property
    def suites(self) -> tuple[str, ...]:
        """The taxed suites, the harmful and the harmless prompts."""
        return tuple(dict.fromkeys((*self.taxed, self.harm, self.harmless)))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the pair and of every item in each part: two results with another fingerprint are no comparison."""
        parts = [
            [name, part, suite.sha256, self.template[name]]
            for part, suites in (("train", self.train), ("validation", self.validation), ("held", self.held))
            for name, suite in sorted(suites.items())
        ]
        weights = (self.pair.base.sha256, self.pair.aligned.sha256)
        told = [weights, self.taxed, self.harm, self.harmless, self.unit, self.seed, parts]
        told += [] if self.search == SEARCH else [self.search]
        return sha256_text(repr(told))[:16]


def edit_task(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    taxed: Sequence[str],
    harm: str,
    harmless: str,
    template: str | Mapping[str, str] = "plain",
    training: Sequence[Suite] | None = None,
    holdout: float = 0.5,
    disjoint: Sequence[str] = SPLIT_KEYS,
    validation: float = 1 / 3,
    train_items: int | None = None,
    held_items: int | None = None,
    unit: str = "singular",
    seed: int = 0,
    checkpoints: Mapping[str, LoadedModel] | None = None,
    search: int = SEARCH,
) -> EditTask:
    """Split suites into training, validation and held-out items, alike for every editor.

    Held-out items share neither group nor (where the suite allows) gold answer with the others; validation items
    share no group with training items.

    Args:
        pair: the two checkpoints.
        suites: suites with choices. Without `training` they are split; with it they are held out whole.
        taxed: names of suites whose loss is to be returned.
        harm: name of the suite of harmful prompts; its gold refuses.
        harmless: name of the suite of harmless prompts; its gold complies.
        template: "plain" or "chat", or suite name to template.
        training: suites of the same names to fit on, where there are other prompts for that.
        holdout: share of each suite that is held out.
        disjoint: what the two sides share nothing of ("group", "gold").
        validation: share of the groups of the rest that is kept for choosing settings.
        train_items, held_items: most items a suite in the fitted and in the held-out part; None: all.
        unit: level of units.
        seed: of the splits and of every draw of an editor.
        checkpoints: name to loaded model, earlier checkpoints of the same training.
        search: trials of an editor that searches its settings by trial.

    Raises:
        UsageError: no harmful prompts of their own, no harmless ones, prompts that are in both, a taxed suite that
            is named nowhere or is the benefit itself, or training prompts that are held out too.
        ItemError: too few items to split.
    """
    _check_roles(suites, taxed, harm, harmless)
    names = tuple(dict.fromkeys((*taxed, harm, harmless)))
    fit: dict[str, Suite] = {}
    held: dict[str, Suite] = {}
    for name in names:
        whole = named(suites, name)
        check_one_right(whole)
        whole = whole.subset([i for i, item in enumerate(whole.items) if item.choices])
        if training is None:
            halves = split_suite(whole, holdout=holdout, disjoint=disjoint, seed=seed)
            fit[name], held[name] = whole.subset(halves.train), whole.subset(halves.held)
        else:
            fit[name], held[name] = named(training, name), whole
        fit[name] = fit[name] if train_items is None else at_most(fit[name], train_items, seed=seed)
        held[name] = held[name] if held_items is None else at_most(held[name], held_items, seed=seed)
        _check_apart(fit[name], held[name])
    parts = {name: _by_group(suite, validation, seed) for name, suite in fit.items()}
    templates = {name: template if isinstance(template, str) else template[name] for name in names}
    return EditTask(
        pair, tuple(dict.fromkeys(taxed)), harm, harmless, {name: train for name, (train, _) in parts.items()},
        {name: kept for name, (_, kept) in parts.items()}, held, templates, unit, seed,
        checkpoints or {}, search,
    )  # fmt: skip


def _check_roles(suites: Sequence[Suite], taxed: Sequence[str], harm: str, harmless: str) -> None:
    """Refuse a comparison that could not tell a cure from lost safety."""
    fix = "give harmful prompts (gold: the refusal) and harmless ones (gold: complying), as two suites."
    rows = [("harm", harm or "none"), ("harmless", harmless or "none"), ("taxed", ", ".join(taxed) or "none")]
    if not harm:
        raise UsageError(explain("an editor is judged by the harmful prompts that it still refuses.", rows, fix))
    if not harmless or harmless == harm:
        raise UsageError(explain("harmful prompts need harmless ones beside them.", rows, fix))
    if not taxed or harm in taxed:
        title = "the benefit cannot be taxed." if taxed else "there is no taxed suite to return."
        raise UsageError(explain(title, rows, "name the suites that lost with `taxed`."))
    prompts = [{item.prompt for item in named(suites, name).items} for name in (harm, harmless)]
    shared = prompts[0] & prompts[1]
    if shared:
        rows.append(("in both", f"{len(shared)}, first {min(map(str, shared))!r}"))
        raise UsageError(explain("a prompt is harmful and harmless at once.", rows, fix))


def _check_apart(fit: Suite, held: Suite) -> None:
    asked = {(item.prompt, item.contexts, item.choices if not item.prompt else ()) for item in fit.items}
    both = [
        item.id for item in held.items if (item.prompt, item.contexts, item.choices if not item.prompt else ()) in asked
    ]
    if both:
        rows = [("suite", held.name), ("prompts", f"{len(both)} of {len(held)}, first {both[0]!r}")]
        raise UsageError(explain("held-out prompts are among those to fit on.", rows, "fit on other prompts."))


def _by_group(suite: Suite, share: float, seed: int) -> tuple[Suite, Suite]:
    """Training and validation items: whole groups are dealt until validation has its share, at least one group each."""
    groups = suite.groups.astype(str)
    names = np.unique(groups)
    if len(names) < 2:
        rows = [("suite", suite.name), ("groups", len(names)), ("needed", "2: one to fit on, one to choose on")]
        raise UsageError(explain("too few groups to keep some for choosing settings.", rows, "give more groups."))
    order = np.random.default_rng([seed, 11]).permutation(names)
    chosen: set[str] = set()
    for name in order[:-1]:
        if np.isin(groups, list(chosen)).sum() >= share * len(groups):
            break
        chosen.add(str(name))
    inside = np.isin(groups, list(chosen))
    return suite.subset(np.flatnonzero(~inside)), suite.subset(np.flatnonzero(inside))

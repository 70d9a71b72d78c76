"""What the stages of a run share: the folder, the pair, the suites and the store, each loaded once and when needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.activations.items.gold import has_several_right
from taxlens.config.schema import Config, SuiteSection
from taxlens.core.errors import ItemError, TaxlensError, UsageError, explain
from taxlens.core.progress import SILENT, Progress
from taxlens.inputs.resolve import section_suite
from taxlens.runs.folder import Run
from taxlens.runs.manifest import versions
from taxlens.runs.provenance import VIEWS, pair_files, section_of, suite_files

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair
    from taxlens.activations.store.store import Store

logger = logging.getLogger(__name__)


class RunContext:
    """A run under way; `facts` is what the manifest will say of pair and suites when a stage has used them."""

    def __init__(
        self,
        run: Run,
        *,
        progress: Progress = SILENT,
        resume: bool = False,
        stages: Sequence[str] = (),
        target: Path | None = None,
    ) -> None:
        self.run = run
        self.stages = tuple(stages)
        self.facts: dict[str, Any] = {}
        self.measured: dict[str, float] = {}
        self.progress = progress
        self.resume = resume
        self.target = target or run.folder

    def tell(self, sentence: str) -> None:
        """Say something that a user should know of this session: to the log, and to whoever asks the run."""
        logger.info("%s", sentence)
        self.run.told.append(sentence)

    @property
    def root(self) -> Path:
        """The folder that the config's relative paths start from."""
        return self.run.root

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.run.config

    @cached_property
    def pair(self) -> ModelPair:
        """The two checkpoints, loaded and checked."""
        return self._loaded[0]

    @property
    def steps(self) -> tuple[LoadedModel, ...]:
        """The checkpoints (or seeds) that the config names before the aligned one."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[ModelPair, tuple[LoadedModel, ...]]:
        from taxlens.activations.models.chat_templates import Asking
        from taxlens.inputs.checkpoints import load_chain

        section = self.config.pair
        pair, steps = load_chain(
            section.base,
            section.aligned,
            adapter=section.adapter,
            root=self.run.root,
            gguf=section.gguf,
            dtype=section.dtype,
            device=section.device,
            chat_template=self.config.chat_template,
            asking=Asking(**self.config.asking.model_dump()),
            revision=section.revision,
        )
        facts = pair_facts(pair)
        if steps:
            facts[section.several] = [*(step.source for step in steps), pair.aligned.source]
        self.facts["pair"] = facts
        return pair, steps

    @cached_property
    def suites(self) -> dict[str, Suite]:
        """The suites by name, read and checked; without the items that a section asks to skip."""
        read = {section.name: self._without_too_long(section) for section in self.config.suites}
        self.facts["suites"] = {
            name: {"items": len(suite), "groups": len(set(suite.groups)), "kind": suite.kind, "sha256": suite.sha256}
            | ({"left out": suite.left_out} if suite.left_out else {})
            for name, suite in read.items()
        }
        return read

    @cached_property
    def _files(self) -> dict[str, Suite]:
        """The suites as their files have them."""
        return {section.name: section_suite(section, self.run.root) for section in self.config.suites}

    def _without_too_long(self, section: SuiteSection) -> Suite:
        suite = self._files[section.name]
        if "too_long" not in section.skip:
            return suite
        from taxlens.activations.models.prompts import fitting

        room = self.config.tax.max_new_tokens if section.generate or section.answers else 0
        kept = fitting(self.pair, suite, self.config.templates, room=room)
        if not kept:
            rows = [("suite", suite.name), ("items", len(suite))]
            raise ItemError(explain("every item of the suite is longer than a model reads.", rows, "shorter items"))
        return replace(suite.subset(kept), left_out=suite.left_out + len(suite) - len(kept))

    def made_from(self, stage: str) -> dict[str, Any]:
        """Return what a stage is made from now: its settings, the hashes of checkpoints and items, the software.

        Of checkpoints or items that are not here, the hashes are None.
        """
        made = {"section": section_of(self.config, stage), "seed": self.config.seed, "versions": versions()}
        if stage in VIEWS:
            return made
        return made | {"pair": pair_files(self.config, self.run.root), "suites": self._suite_hashes}

    @cached_property
    def _suite_hashes(self) -> dict[str, str] | None:
        try:
            return suite_files(self.config, self._files)
        except TaxlensError:
            return None

    def by_template(self, *, attributed: bool = False, several_right: bool = False) -> dict[str, list[Suite]]:
        """The suites that can be scored, by the template in which each is localised.

        Args:
            attributed: of them those to attribute.
            several_right: also those whose items have several right choices: they are measured, and nothing more.
        """
        grouped: dict[str, list[Suite]] = {}
        for section in self.config.suites:
            suite = self.suites[section.name]
            if has_several_right(suite) and not several_right:
                continue
            if any(item.choices for item in suite.items) and (section.attribute or not attributed):
                grouped.setdefault(self.template_of(section), []).append(suite)
        return grouped

    def answers_path(self, section: SuiteSection, side: str) -> Path:
        """Where the suite of one model's own answers to a suite is: made by the tax stage where the section asks for it."""
        from taxlens.analysis.answers.kept.answer_suites import answers_name

        return self.run.folder / "suites" / f"{answers_name(section.name, side)}.jsonl"

    def answer_suites(self) -> dict[str, list[Suite]]:
        """The suites of both models' own answers that the tax stage made, by the template in which they were given."""
        from taxlens.activations.items.items import read_suite

        found: dict[str, list[Suite]] = {}
        for section in (one for one in self.config.suites if one.answers):
            for path in (self.answers_path(section, side) for side in ("base", "aligned")):
                name = f"suites/{path.name}"
                if self.run.has_file(name):
                    suite = read_suite(self.run.checked(name), kind=section.kind)
                    found.setdefault(self.template_of(section), []).append(suite)
        return found

    def template_of(self, section: SuiteSection) -> str:
        """The template in which a suite is localised: its own, or the first of the config's."""
        return section.template or self.config.templates[0]

    @property
    def part(self) -> tuple[int, int] | None:
        """Which part of the capture this run holds, (number from 1, of how many); None: all of it."""
        number, count = self.run.manifest.get("part") or (0, 0)
        return (int(number), int(count)) if count else None

    @property
    def store_path(self) -> Path:
        """Where the run's activations are."""
        return self.run.store

    def open_store(self) -> Store:
        """Open the run's store.

        Raises:
            UsageError: if nothing was captured yet.
        """
        from taxlens.activations.store.store import Store

        if not self.store_path.exists():
            rows = [("looked for", self.store_path)]
            raise UsageError(explain("nothing was captured yet.", rows, f"taxlens capture {self.run.folder}"))
        if self.part is not None:
            rows = [("run folder", self.run.folder), ("holds", "part {} of {}".format(*self.part))]
            fix = "taxlens merge PART... --out DIR, and go on with DIR."
            raise UsageError(explain("this run holds one part of a capture.", rows, fix))
        self.run.checked("activations.shards/manifest.json")
        return Store.open(self.store_path)


def pair_facts(pair: ModelPair) -> dict[str, Any]:
    """Return what a manifest says of a pair: sources, every compared field, notes.

    A field is one value where both agree; the weights are always by model.
    """
    facts: dict[str, Any] = {"base": pair.base.source, "aligned": pair.aligned.source}
    for name, base, aligned in pair.report.rows:
        one = base == aligned and name != "weights sha256"
        facts[name] = base if one else {"base": base, "aligned": aligned}
    return facts | {"notes": list(pair.report.notes)}

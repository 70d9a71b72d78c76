"""The pair as a notebook holds it: two checkpoints, and every question about them a method."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.activations.items.items import Suite
from taxlens.activations.models.pair import ModelPair
from taxlens.core.errors import one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.face.activations import Activations
from taxlens.inputs.checkpoints import short_names
from taxlens.stages import STAGES
from taxlens.stages.section import ASKED_IN, Section, asked

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.analysis.features.dictionaries.dictionary import Dictionary
    from taxlens.analysis.features.feature_report import FeatureReport
    from taxlens.analysis.frontier.front import Frontier
    from taxlens.analysis.interventions.stitching import StitchProfile
    from taxlens.analysis.path.attribute import Attribution
    from taxlens.analysis.path.polyline import Polyline
    from taxlens.analysis.readings.logit_lens import LogitLens
    from taxlens.analysis.state.diagnose import Diagnosis
    from taxlens.analysis.state.diagnoses import Diagnoses
    from taxlens.analysis.tax.checkpoint_taxes import CheckpointTaxes
    from taxlens.analysis.tax.tax import Tax


class Pair:
    """A base and an aligned checkpoint. Methods are named as the commands are.

    Example:
        >>> import taxlens
        >>> pair = taxlens.load_pair("demo:base", "demo:planted")
        >>> acts = pair.capture(taxlens.suite("demo:facts"), to="acts.h5")     # doctest: +SKIP
        >>> acts.probe("correct")                                               # doctest: +SKIP
    """

    def __init__(
        self,
        models: ModelPair,
        *,
        steps: Sequence[LoadedModel] = (),
        several: str = "chain",
        progress: Progress = SILENT,
    ) -> None:
        self.models = models
        self.steps = tuple(steps)
        self.several = several
        self._progress = progress

    @property
    def base(self) -> LoadedModel:
        """The checkpoint before alignment: model, tokenizer, source, sha256."""
        return self.models.base

    @property
    def aligned(self) -> LoadedModel:
        """The checkpoint after alignment."""
        return self.models.aligned

    def tax(
        self,
        suites: Suite | Sequence[Suite],
        *,
        templates: Sequence[str] = ASKED_IN,
        **options: Any,
    ) -> Tax | CheckpointTaxes:
        """Return how much each suite lost, with paired intervals and the items lost and won; of a list, for every model.

        Args:
            suites: one suite or several.
            templates: "plain", "chat", or both.
            options: of the config's section `tax` (metrics, bootstrap, interval, margin), and seed.
        """
        from taxlens.activations.models.pair import make_pair
        from taxlens.analysis.tax.checkpoint_taxes import CheckpointTaxes
        from taxlens.analysis.tax.tax import measure_tax
        from taxlens.stages.tax.tax_section import TaxSection

        chosen = {"progress": self._progress} | asked(TaxSection, options, measure_tax)
        found = measure_tax(self.models, _many(suites), templates=tuple(templates), **chosen)
        if not self.steps:
            return found
        before = [
            measure_tax(make_pair(self.models.base, step), _many(suites), templates=tuple(templates), **chosen)
            for step in self.steps
        ]
        names = short_names([step.source for step in (*self.steps, self.models.aligned)])
        return CheckpointTaxes(dict(zip(names, [*before, found], strict=True)), self.several)

    def capture(
        self,
        suites: Suite | Sequence[Suite],
        *,
        to: str | Path,
        sites: str | Sequence[str] = "resid_post",
        templates: Sequence[str] = ASKED_IN,
        exist: str = "error",
        **options: Any,
    ) -> Activations:
        """Capture both models' activations to an HDF5 store and return them.

        Args:
            suites: one suite or several.
            to: path of the store.
            sites: one site or several.
            templates: "plain", "chat", or both.
            exist: "error" refuses where a store is; "reuse" opens it if it was captured by the same request, goes on
                where it was interrupted, and refuses another request's store. So a notebook's cell can run twice.
            options: of the config's section `capture`.

        Raises:
            UsageError: a store is there already and `exist` is "error".
            StoreError: the store there is of another request.
        """
        from taxlens.activations.capture.capture import capture
        from taxlens.activations.capture.request import CaptureOptions
        from taxlens.core.errors import UsageError, explain
        from taxlens.stages.capture.capture_section import CaptureSection

        if (
            one_of(exist, ("error", "reuse"), what="exist") == "error"
            and not options.get("resume")
            and Path(to).exists()
        ):
            rows = [("path", to)]
            raise UsageError(explain("a store is here already.", rows, 'exist="reuse", or another path.'))
        options |= {"resume": True} if exist == "reuse" and Path(to).exists() else {}
        named = (sites,) if isinstance(sites, str) else tuple(sites)
        chosen = asked(
            CaptureSection, options | {"sites": named, "templates": tuple(templates)}, capture, CaptureOptions
        )
        store = capture(self.models, _many(suites), to=Path(to), **({"progress": self._progress} | chosen))
        return Activations(store, progress=self._progress)

    def attribute(
        self,
        suites: Suite | Sequence[Suite],
        *,
        template: str = "plain",
        **options: Any,
    ) -> Attribution:
        """Return the effect of every component, head and singular triple on the tax; effects sum to the tax.

        With checkpoints between base and aligned, effects are summed along the polyline through them.

        Args:
            suites: one suite or several.
            template: "plain" or "chat".
            options: of the config's section `attribution` (metrics, levels, tolerance, ...), and of
                `analysis.path.attribute.attribute`: seed, or `functions` of scores or logits that `metrics` then names.
        """
        if self.steps and self.several == "chain":
            return self.polyline(suites, template=template, **options).whole()
        from taxlens.analysis.path.attribute import attribute

        return attribute(self.models, _many(suites), template=template, **self._path_options(options))

    def features(
        self,
        suites: Suite | Sequence[Suite],
        dictionaries: Mapping[str, str | Path | Dictionary] | str | Path | Dictionary,
        *,
        template: str = "plain",
        **options: Any,
    ) -> FeatureReport:
        """Return the account of each tax in the latents of dictionaries, with controls, rivals and both models' readings.

        Args:
            suites: one suite or several.
            dictionaries: a folder, a dictionary, or several by name.
            template: "plain" or "chat".
            options: of the config's section `features`, and of `analysis.features.feature_report.report_features`;
                `unaligned` holds loaded models by name.
        """
        from taxlens.analysis.features.account_run import account_dictionaries
        from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary
        from taxlens.analysis.features.feature_report import report_features
        from taxlens.analysis.path.attribute import attribute
        from taxlens.stages.features.features_section import FeaturesSection

        def read(one: str | Path | Dictionary) -> Dictionary:
            return read_dictionary(one) if isinstance(one, str | Path) else one

        named = dictionaries if isinstance(dictionaries, Mapping) else {_name(dictionaries): dictionaries}
        found = {name: read(one) for name, one in named.items()}
        models = {name: options.pop(name) for name in ("unaligned",) if name in options}
        chosen = _chosen(FeaturesSection, options, report_features, account_dictionaries, attribute)
        chosen = {name: value for name, value in chosen.items() if name != "unaligned"} | models
        return report_features(
            self.models, _many(suites), found, template=template, **({"progress": self._progress} | chosen)
        )

    def polyline(self, suites: Suite | Sequence[Suite], **options: Any) -> Polyline:
        """Return the attribution segment by segment through the checkpoints between base and aligned.

        Args:
            suites: one suite or several.
            options: as for `attribute`.
        """
        from taxlens.analysis.path.polyline import attribute_polyline

        models = [self.models.base, *self.steps, self.models.aligned]
        return attribute_polyline(models, _many(suites), **self._path_options(options))

    def _path_options(self, options: dict[str, Any]) -> dict[str, Any]:
        from taxlens.analysis.path.attribute import attribute
        from taxlens.stages.attribute.attribution_section import AttributionSection

        return {"progress": self._progress} | _chosen(AttributionSection, options, attribute)

    def restoration(
        self,
        suites: Suite | Sequence[Suite],
        *,
        template: str = "plain",
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> StitchProfile:
        """Return what comes back of the tax when the base computes everything below a layer, cut by cut."""
        from taxlens.analysis.interventions.stitching import stitched_profile
        from taxlens.analysis.scoring.evaluator import ChoiceMeasure

        several = tuple(_many(suites))
        groups = {suite.name: suite.groups for suite in several}
        measure = ChoiceMeasure(self.models, several, template=template)
        return stitched_profile(
            self.models, measure, groups=groups, layers=layers, **({"progress": self._progress} | options)
        )

    def logit_lens(self, suites: Suite | Sequence[Suite], *, template: str = "plain", **options: Any) -> LogitLens:
        """Return what each layer's stream would answer if the model ended there, in both models, with intervals.

        Args:
            suites: one suite or several.
            template: "plain" or "chat".
            options: of the config's section `lens` (items), and `bootstrap`, `seed`, `batch_tokens`.
        """
        from taxlens.analysis.readings.logit_lens import logit_lens
        from taxlens.stages.lens.lens_section import LensSection

        chosen = {"progress": self._progress} | asked(LensSection, options, logit_lens)
        return logit_lens(self.models, _many(suites), template=template, **chosen)

    def diagnose(
        self, suites: Suite | Sequence[Suite], *, template: str = "plain", **options: Any
    ) -> Diagnosis | Diagnoses:
        """Return in which state a capability is, with its evidence; of several suites, all their diagnoses.

        Args:
            suites: one suite or several.
            template: "plain" or "chat".
            options: of the config's section `diagnose` (layers, items, relearn), and of `analysis.state.diagnose`.
        """
        from taxlens.analysis.state.diagnose import diagnose
        from taxlens.analysis.state.diagnoses import diagnose_suites
        from taxlens.stages.diagnose.diagnose_section import DiagnoseSection

        engine = diagnose if isinstance(suites, Suite) else diagnose_suites
        chosen = {"progress": self._progress} | asked(DiagnoseSection, options, engine)
        if isinstance(suites, Suite):
            return diagnose(self.models, suites, template=template, **chosen)
        return diagnose_suites(self.models, suites, template={suite.name: template for suite in suites}, **chosen)

    def frontier(
        self, suites: Sequence[Suite], *, benefit: str, against: str = "", template: Any = "plain", **options: Any
    ) -> Frontier:
        """Return what undoing parts of the update brings back and costs, measured on items that the choice did not see.

        Args:
            suites: capability suites and the benefit suite.
            benefit: name of the suite that alignment was for.
            against: name of a suite of harmless prompts.
            template: "plain" or "chat", or suite name to template.
            options: of the config's section `frontier`, and of `analysis.frontier.options.Options`.
        """
        from taxlens.analysis.frontier.measure import frontier
        from taxlens.analysis.frontier.options import Options
        from taxlens.stages.frontier.frontier_section import FrontierSection

        given = options | {"benefit": benefit, "against": against}
        chosen = {"progress": self._progress} | asked(FrontierSection, given, frontier, Options)
        if chosen["max_gradients"] is None:
            del chosen["max_gradients"]  # that of the attribution, which is the engine's
        return frontier(self.models, _many(suites), template=template, **chosen)

    def restore(self, front: Frontier, *, plan: str, out: str | Path, accept_benefit_loss: bool = False) -> Path:
        """Write the checkpoint that a measured plan describes and return its directory.

        Args:
            front: what `frontier` returned.
            plan: a plan's name, or "recommended".
            out: the directory to make.
            accept_benefit_loss: write it although its measured benefit is below the margin.

        Raises:
            BenefitLossError: the benefit falls below the margin and that was not accepted.
        """
        import tempfile

        from taxlens.analysis.frontier.plan_files import read_plan, write_plans
        from taxlens.analysis.frontier.restore import restore

        with tempfile.TemporaryDirectory() as folder:
            file = write_plans(
                front, Path(folder) / "plans.json", base=self.models.base.sha256, aligned=self.models.aligned.sha256
            )
            record = read_plan(file, plan)
        return restore(self.models, record, out=out, accept_benefit_loss=accept_benefit_loss)

    def __getattr__(self, name: str) -> Any:
        """The methods of stages that declare one (`Stage.notebook`)."""
        declared = {stage.name: stage.notebook for stage in STAGES if stage.notebook is not None}
        if name not in declared:
            near = difflib.get_close_matches(name, dir(self), n=1)
            raise AttributeError(f"a pair has no {name!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        return partial(declared[name], self)

    def __dir__(self) -> list[str]:
        declared = [stage.name for stage in STAGES if stage.notebook is not None]
        return [name for name in [*super().__dir__(), *declared] if not name.startswith("_")]

    def __repr__(self) -> str:
        sources = [step.source for step in (*self.steps, self.models.aligned)]
        if not self.steps:
            return f"Pair({self.models.base.source!r} -> {sources[0]!r})"
        if self.several == "seeds":
            return f"Pair({self.models.base.source!r} -> {len(sources)} seeds: {', '.join(map(repr, sources))})"
        return f"Pair of a chain of {len(sources)} checkpoints({' -> '.join(map(repr, [self.models.base.source, *sources]))})"

    def _repr_html_(self) -> str:
        import html

        table = self.models.report.to_frame().to_html(index=False, border=0, escape=True)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.models.report.notes)
        return f"<p><code>{html.escape(repr(self))}</code></p>{table}<ul>{notes}</ul>"


def _chosen(section: type[Section], options: Mapping[str, Any], *engines: Callable[..., Any]) -> dict[str, Any]:
    """What is asked of an attribution, whose metrics may also be names of `functions` that a user gives."""
    own = {"metrics": tuple(options["metrics"])} if options.get("functions") and "metrics" in options else {}
    return asked(section, {name: value for name, value in options.items() if name not in own}, *engines) | own


def _name(dictionary: str | Path | Dictionary) -> str:
    return Path(dictionary).name if isinstance(dictionary, str | Path) else dictionary.source or "dictionary"


def _many(suites: Suite | Sequence[Suite]) -> list[Suite]:
    return [suites] if isinstance(suites, Suite) else list(suites)

"""The stage that accounts for the tax in features: dictionaries found or trained, and their accounts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.analysis.features.feature_tables import FEATURE_TABLES
from taxlens.core.errors import ConfigError, explain, one_of
from taxlens.inputs.resolve import resolve_model
from taxlens.stages.features.features_section import DictionaryEntry, FeaturesSection
from taxlens.stages.stage import StageCost

if TYPE_CHECKING:
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.analysis.features.dictionaries.dictionary import Dictionary
    from taxlens.runs.checking import CheckContext
    from taxlens.runs.context import RunContext

FOLDER = "dictionaries"
"""Where a run keeps the dictionaries that it trained."""
DICTIONARY = 16_384
"""Latents that a dictionary is taken to have before it is read."""


def check_features(job: RunContext | CheckContext, section: FeaturesSection) -> None:
    """Refuse a section that names nothing to read, an absent folder or corpus, or an unknown suite.

    Raises:
        ConfigError: with what is missing.
    """
    if not section.dictionaries and section.train is None:
        fix = "features: {dictionaries: [{path: FOLDER}]}, or features.train"
        raise ConfigError(explain("features are asked for and no dictionary is named.", (), fix))
    for entry in section.dictionaries:
        if local(entry, job.root) is None and not _is_hub_id(entry.path):
            rows = [("dictionary", entry.path), ("looked in", job.root)]
            raise ConfigError(explain("there is no such dictionary.", rows, "a folder, or owner/name on the hub."))
    if section.train is not None:
        for name in section.train.corpus:
            if not (job.root / name).exists():
                raise ConfigError(explain("the corpus is missing.", [("file", job.root / name)], "check the path."))
        if section.train.k >= section.train.width:
            raise ConfigError(explain("k must be smaller than width.", [("k", section.train.k)]))
    for text in section.unaligned:
        resolve_model(text, job.root)
    for name in section.suites or ():
        one_of(name, [one.name for one in job.config.suites], what="suite of features", error=ConfigError)


def features_cost(job: RunContext, section: FeaturesSection) -> StageCost:
    """What the stage will take: gradients, scorings of the controls, and the training where it is asked for."""
    from taxlens.analysis.scoring.budget import minutes_for, read_tokens
    from taxlens.stages.needs import ROW, gradient_bytes, training_bytes
    from taxlens.stages.trials import at_speed

    count = len(section.dictionaries) + (len(section.train.layers) * len(section.train.seeds) if section.train else 0)
    beside = 2 * (1.5 * section.draws + len(section.rivals) + 6) if section.draws else 6
    passes = 3 * section.max_gradients * (2 + len(section.unaligned)) + count * beside
    minutes = 0.0
    for template, suites in _chosen(job, section).items():
        minutes += sum(minutes_for(job.pair, passes * read_tokens(job.pair, one, template=template)) for one in suites)
    words = f"{count} dictionaries, at most {section.max_gradients} gradients"
    if section.train is not None:
        minutes += minutes_for(job.pair, 2 * section.train.tokens)
        words += f", training on {section.train.tokens:,} tokens"
    held = 8.0 * job.pair.base.anatomy.d_model * (section.train.width if section.train else DICTIONARY)
    items = sum(len(suite) for suites in _chosen(job, section).values() for suite in suites)
    disk = count * (items * len(section.metrics) * section.listed * ROW + (held if section.train else 0.0))
    memory = training_bytes(job) if section.train else gradient_bytes(job)
    return StageCost(at_speed(job, minutes), disk=disk, memory=memory + count * held, words=words)


def stage_features(job: RunContext, section: FeaturesSection) -> None:
    """Read or train the dictionaries and write the features' tables."""
    from taxlens.analysis.features.feature_report import report_features

    check_features(job, section)
    dictionaries = read_entries(section.dictionaries, job.run.root)
    if section.train is not None:
        from taxlens.stages.features.features_training import train_missing

        out = job.run.folder / FOLDER
        dictionaries |= train_missing(
            job.pair, section.train, root=job.run.root, out=out, resume=True, progress=job.progress
        )
    unaligned = _unaligned(job, section) if section.draws else {}
    frames: dict[str, list[Any]] = {table.name: [] for table in FEATURE_TABLES}
    for template, suites in _chosen(job, section).items():
        found = report_features(
            job.pair, suites, dictionaries, template=template, metrics=section.metrics, reading=section.reading,
            items=section.items, max_gradients=section.max_gradients, tolerance=section.tolerance,
            leading=section.leading, draws=section.draws, rivals=section.rivals,
            unaligned=unaligned, cut=section.cut, components=section.components, listed=section.listed,
            bootstrap=job.config.tax.bootstrap, seed=job.config.seed, progress=job.progress,
        )  # fmt: skip
        for name, frame in found.tables.items():
            frames[name].append(frame)
    for table in FEATURE_TABLES:
        job.run.write(table, table.join(frames[table.name]))


def _unaligned(job: RunContext, section: FeaturesSection) -> dict[str, LoadedModel]:
    """The checkpoints that were tuned without alignment, loaded as the base is; adapters on the base."""
    from taxlens.activations.models.adapter import apply_adapter
    from taxlens.activations.models.loading import load_model

    base, found = job.pair.base, {}
    for text in section.unaligned:
        path = resolve_model(text, job.run.root)
        adapted = (Path(path) / "adapter_config.json").exists()
        found[text] = (
            apply_adapter(base, path) if adapted else load_model(path, dtype=base.dtype, device=str(base.device))
        )
    return found


def _chosen(job: RunContext, section: FeaturesSection) -> dict[str, list[Any]]:
    """The suites that are accounted for, by template."""
    wanted = section.suites
    found = {
        template: [s for s in suites if (s.name in wanted if wanted is not None else s.kind == "capability")]
        for template, suites in job.by_template(attributed=True).items()
    }
    return {template: suites for template, suites in found.items() if suites}


def local(entry: DictionaryEntry, root: Path) -> Path | None:
    """The folder of a dictionary on this machine, or None."""
    for path in (Path(entry.path).expanduser(), Path(root) / entry.path):
        if path.exists():
            return path
    return None


def read_entries(entries: tuple[DictionaryEntry, ...], root: Path) -> dict[str, Dictionary]:
    """The dictionaries that a config names, by name; a hub id is fetched unless it lies in the hub's cache.

    Raises:
        ConfigError: one is missing or of no known form.
    """
    from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary

    found: dict[str, Dictionary] = {}
    for entry in entries:
        folder = local(entry, root) or _fetched(entry.path)
        read = read_dictionary(folder)
        said = {"site": entry.site or read.site, "layer": read.layer if entry.layer is None else entry.layer}
        found[entry.name or Path(entry.path).name] = dataclasses.replace(read, **said)
    return found


def _is_hub_id(path: str) -> bool:
    parts = path.split("/")
    return len(parts) >= 2 and not path.startswith((".", "/", "~")) and all(parts)


def _fetched(path: str) -> Path:
    from huggingface_hub import snapshot_download

    owner, name, *rest = path.split("/")
    inside = "/".join(rest)
    patterns = [f"{inside}/*" if inside else "*"]
    try:
        files = snapshot_download(
            f"{owner}/{name}", allow_patterns=patterns, ignore_patterns=["*.pt", "*.bin", "*.pkl", "*.py"]
        )
    except Exception as error:
        rows = [("dictionary", path), ("hub says", str(error).splitlines()[0][:120])]
        fix = "a local folder, or fetch it first where there is a network."
        raise ConfigError(explain("no such folder, and the hub did not give it.", rows, fix)) from error
    return Path(files) / inside

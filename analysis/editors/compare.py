"""Editors compared: the same items, the same number of settings, settings chosen on validation, one held-out measurement."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.analysis.answers.refusal_rates import JudgeError
from taxlens.analysis.editors.cost import memory_reason
from taxlens.analysis.editors.edit import Edit
from taxlens.analysis.editors.edit_files import load_edit, save_edit
from taxlens.analysis.editors.editor_tables import EDITOR_SETTINGS, MEASURED
from taxlens.analysis.editors.held_out import HeldOutMeasure, HeldValues, load_values, save_values
from taxlens.analysis.editors.objective import Validation, Validator
from taxlens.analysis.editors.outcome import Outcome, outcome
from taxlens.analysis.editors.registry import Editor, editor_named
from taxlens.analysis.editors.task import EditTask
from taxlens.core.artifacts import finished, sha256_file
from taxlens.core.errors import StoreError, UsageError, explain
from taxlens.core.json_text import read_sealed, write_sealed
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.stats.intervals import Interval
from taxlens.core.stats.ratios import joint_ratio


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tried setting and what validation items said of it."""

    label: str
    validation: Validation


@dataclass(frozen=True, slots=True, eq=False)
class EditorRow:
    """An editor's chosen setting, measured on held-out items.

    Args:
        editor: the editor.
        candidates: every setting that was tried.
        chosen: label of the setting that validation chose.
        form, free, energy, notes: of the edit.
        seconds: processor seconds of fitting all candidates, their validation apart.
        values: held-out values.
        outcome: columns with intervals.
    """

    editor: Editor
    candidates: tuple[Candidate, ...]
    chosen: str
    form: str
    free: int
    energy: float
    notes: tuple[str, ...]
    seconds: float
    values: HeldValues
    outcome: Outcome


@dataclass(frozen=True, slots=True, eq=False)
class EditorComparison(Result):
    """Editors on one task.

    Args:
        fingerprint: of the task.
        tries: most settings that an editor may try.
        keep: share of the refusals that settings were asked to keep on validation.
        rows: what was measured, in the order asked for.
        skipped: editor to the reason why it could not be had.
        held: the held-out items and both ends.
        draws, seed: of the group bootstrap.
    """

    figure: ClassVar[str] = ""

    fingerprint: str
    tries: int
    keep: float
    rows: tuple[EditorRow, ...]
    skipped: Mapping[str, str]
    held: HeldOutMeasure
    draws: int = 2000
    seed: int = 0

    def row(self, name: str) -> EditorRow:
        """The row of an editor.

        Raises:
            UsageError: it was not measured; those that were are listed.
        """
        for row in self.rows:
            if row.editor.name == name:
                return row
        rows = [
            ("measured", ", ".join(row.editor.name for row in self.rows)),
            ("skipped", self.skipped.get(name, "no")),
        ]
        raise UsageError(explain(f"there is no row of editor {name!r}.", rows))

    def ahead(self, one: str, other: str) -> Interval:
        """How much more of the tax one editor returns than another, share of the tax, resampled together.

        By generation where both were asked, else in probability.
        """
        rows, held, names = (self.row(one), self.row(other)), self.held, self.held.task.taxed
        if all("returned_generated" in row.outcome for row in rows):
            names = tuple(s for s in names if s in held.base.answered)
            mine, theirs, base, aligned = (
                v.answered for v in (rows[0].values, rows[1].values, held.base, held.aligned)
            )
            top, bottom = [theirs[s] - mine[s] for s in names], [aligned[s] - base[s] for s in names]
        else:
            sides = (rows[0].values, rows[1].values, held.base, held.aligned)
            mine, theirs, base, aligned = ({s: v.choices[s]["probability"] for s in names} for v in sides)
            top, bottom = [mine[s] - theirs[s] for s in names], [base[s] - aligned[s] for s in names]
        return joint_ratio(top, bottom, [held.groups[s] for s in names], draws=self.draws, seed=self.seed)

    def ties(self, name: str) -> list[str]:
        """Editors whose difference from this one has an interval that holds 0: no order between them is claimed."""
        found = []
        for row in self.rows:
            if row.editor.name != name:
                gap = self.ahead(name, row.editor.name)
                if gap.low <= 0 <= gap.high:
                    found.append(row.editor.name)
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row an editor: what it is, saw and cost, then every column of `MEASURED` with its interval."""
        lines = []
        for row in self.rows:
            picked = next(c.validation for c in row.candidates if c.label == row.chosen)
            line: dict[str, Any] = {
                "editor": row.editor.name, "family": row.editor.family, "setting": row.chosen, "form": row.form,
                "free_numbers": row.free, "energy": row.energy, "saw": " ".join(row.editor.sees) or "nothing",
                "tried": len(row.candidates), "tries": self.tries, "seconds": row.seconds,
                "validation_returned": picked.returned, "validation_harm_kept": picked.harm_kept,
            }  # fmt: skip
            for name in MEASURED:
                interval = row.outcome.columns.get(name)
                for end in ("value", "low", "high"):
                    key = name if end == "value" else f"{name}_{end}"
                    line[key] = getattr(interval, end) if interval is not None else np.nan
            line["notes"] = "; ".join(row.notes)
            lines.append(line)
        return pd.DataFrame(lines)

    def fronts_frame(self) -> pd.DataFrame:
        """Every tried setting on the validation items: editor, setting, returned, harm_kept, harmless, chosen."""
        lines = [
            (
                r.editor.name,
                c.label,
                c.validation.returned,
                c.validation.harm_kept,
                c.validation.harmless,
                c.label == r.chosen,
            )
            for r in self.rows
            for c in r.candidates
        ]
        return pd.DataFrame(lines, columns=list(EDITOR_SETTINGS.columns))

    def __repr__(self) -> str:
        best = max(self.rows, key=lambda row: row.outcome.back.value, default=None)
        words = f"EditorComparison of {len(self.rows)} editors, {self.tries} settings each at most, {len(self.skipped)} skipped"
        if best is None:
            return words
        back, harm = best.outcome.back, best.outcome.harm
        return (
            f"{words}; most returned: {best.editor.name} {back.value:.0%} [{back.low:.0%}, {back.high:.0%}] at "
            f"{harm.value:.0%} [{harm.low:.0%}, {harm.high:.0%}] of harm alone; n={back.n_items} items in "
            f"{back.n_groups} groups"
        )


def compare_editors(
    task: EditTask,
    editors: Sequence[str | Editor],
    held: HeldOutMeasure,
    *,
    tries: int = 3,
    keep: float = 0.95,
    folder: Path | str | None = None,
    error: JudgeError | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> EditorComparison:
    """Fit editors on the training items, choose a setting of each on validation items, measure it on held-out ones.

    Args:
        task: items and roles, the same for all.
        editors: names of the registry, or editors.
        held: what measures; of the same task.
        tries: most settings of an editor.
        keep: share of the refusal log-odds on harm that a setting should keep on validation.
        folder: where rows are kept, so that a killed comparison resumes; edits that are small files are kept there too.
        error: of the judge of answers.
        draws, seed: of the group bootstrap.
        progress: told of every editor.

    Returns:
        The comparison; an editor whose needs are not met is in `skipped` with the reason.

    Raises:
        UsageError: an unknown editor, fewer than one setting, or a measure of another task.
    """
    if tries < 1:
        raise UsageError(explain("an editor needs a setting to try.", [("tries", tries)]))
    if held.task.fingerprint != task.fingerprint:
        rows = [("task", task.fingerprint), ("held-out items of", held.task.fingerprint)]
        raise UsageError(explain("the held-out items are another task's.", rows, "measure on the task's own items."))
    chosen = [editor_named(e) if isinstance(e, str) else e for e in editors]
    kept = None if folder is None else Path(folder)
    found, skipped, validator = [], {}, None
    with progress.task("editors", total=len(chosen), unit="editors") as bar:
        for editor in chosen:
            row = _kept_row(kept, editor, held, tries, keep)
            if row is None:
                reason = editor.needs(task) or memory_reason(task, editor.name)
                if reason:
                    skipped[editor.name] = reason
                    bar.advance(1, note=editor.name)
                    continue
                validator = validator or Validator(task)
                row = _fitted(task, editor, validator, held, tries=tries, keep=keep, folder=kept, progress=progress)
            facts, candidates, values = row
            results = outcome(held, values, error=error, draws=draws, seed=seed)
            found.append(EditorRow(editor=editor, candidates=candidates, values=values, outcome=results, **facts))
            bar.advance(1, note=editor.name)
    return EditorComparison(task.fingerprint, tries, keep, tuple(found), skipped, held, draws, seed)


def joined(parts: Sequence[EditorComparison]) -> EditorComparison:
    """Comparisons of one task put together.

    Raises:
        UsageError: they differ in items, in the number of settings or in what was to be kept: no comparison.
    """
    first = parts[0]
    for name, of in (
        ("items and pair", lambda c: c.fingerprint),
        ("tries", lambda c: c.tries),
        ("keep", lambda c: c.keep),
    ):
        seen = list(dict.fromkeys(str(of(part)) for part in parts))
        if len(seen) > 1:
            fix = "give every editor the same items and the same number of settings."
            raise UsageError(
                explain("these rows are no comparison: their budgets differ.", [(name, ", ".join(seen))], fix)
            )
    rows = tuple(row for part in parts for row in part.rows)
    skipped = {name: reason for part in parts for name, reason in part.skipped.items()}
    return EditorComparison(
        first.fingerprint, first.tries, first.keep, rows, skipped, first.held, first.draws, first.seed
    )


def reopened(task: EditTask, row: EditorRow, folder: Path | str, *, tries: int, keep: float) -> Edit:
    """The edit of a row that a folder keeps; one that is no small file is made again, the same setting.

    Raises:
        UsageError: the editor no longer proposes that setting.
    """
    path = _path(Path(folder), row.editor, task, tries, keep, "safetensors")
    if path.is_file():
        return load_edit(path, task.pair)
    for edit in _limited(row.editor.propose(task, tries=tries, progress=SILENT), tries):
        if edit.label == row.chosen:
            return edit
    rows = [("editor", row.editor.name), ("setting", row.chosen)]
    raise UsageError(explain("this setting is not proposed any more.", rows, "compare the editors again."))


_Row = tuple[dict[str, Any], tuple[Candidate, ...], HeldValues]


def _fitted(
    task: EditTask, editor: Editor, validator: Validator, held: HeldOutMeasure, *, tries: int, keep: float, folder: Path | None,
    progress: Progress,
) -> _Row:  # fmt: skip
    candidates: list[Candidate] = []
    best: tuple[float, Edit] | None = None
    seconds, spent = 0.0, time.process_time()
    for edit in _limited(editor.propose(task, tries=tries, progress=progress), tries):
        seconds += time.process_time() - spent if edit.seconds is None else edit.seconds
        with edit.opened() as model:
            candidates.append(Candidate(edit.label, validator(model)))
        score = candidates[-1].validation.score(keep)
        if best is None or score > best[0]:
            best = (score, edit)
        spent = time.process_time()
    seconds += time.process_time() - spent
    if best is None:
        raise UsageError(explain(f"editor {editor.name} proposed nothing.", ()))
    edit = best[1]
    held.read_ends()
    with edit.opened() as model:
        values = held(f"{task.fingerprint}-{editor.name}-{tries}", model)
    facts = {
        "chosen": edit.label, "form": edit.form, "free": edit.free, "energy": float(edit.energy),
        "notes": tuple(edit.notes), "seconds": seconds,
    }  # fmt: skip
    if folder is not None:
        _keep(folder, editor, held, tries, keep, edit, (facts, tuple(candidates), values))
    return facts, tuple(candidates), values


def _limited(edits: Iterator[Edit], most: int) -> Iterator[Edit]:
    for number, edit in enumerate(edits):
        if number >= most:
            return
        yield edit


def _path(folder: Path, editor: Editor, task: EditTask, tries: int, keep: float, ending: str) -> Path:
    return folder / f"{editor.name}-{task.fingerprint}-{tries}-{keep:g}.{ending}"


def _keep(folder: Path, editor: Editor, held: HeldOutMeasure, tries: int, keep: float, edit: Edit, row: _Row) -> None:
    facts, candidates, values = row
    at = partial(_path, folder, editor, held.task, tries, keep)
    folder.mkdir(parents=True, exist_ok=True)
    files = [save_values(values, at("npz"))]
    if edit.form in ("units", "adapter", "steering"):
        files.append(save_edit(edit, at("safetensors"), pair=held.task.pair))
    told = {s: list(answers) for s, answers in values.answers.items()}
    stored = facts | {
        "energy": facts["energy"] if np.isfinite(facts["energy"]) else None,
        "notes": list(facts["notes"]),
    }
    whole = {
        "facts": stored, "candidates": [asdict(c) for c in candidates], "answers": told, "editor": editor.name,
        "measure": held.fingerprint, "files": {path.name: sha256_file(path) for path in files},
    }  # fmt: skip
    write_sealed(whole, at("json"))


def _kept_row(folder: Path | None, editor: Editor, held: HeldOutMeasure, tries: int, keep: float) -> _Row | None:
    """What a folder keeps of an editor, if it was measured in the same way."""
    if folder is None:
        return None
    at = partial(_path, folder, editor, held.task, tries, keep)
    if not at("json").is_file():
        return None
    title, fix = "the kept row of an editor cannot be read.", "delete it: it will be made again."
    stored = read_sealed(at("json"), title=title, fix=fix)
    if stored.get("measure", held.fingerprint) != held.fingerprint:
        return None
    for name, digest in stored["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise StoreError(explain(title, [("file", folder / name), ("reason", "changed or missing")], fix))
    for name in (at("json").name, *stored["files"]):
        finished(folder / name)  # a pass that takes it over keeps it
    facts = stored["facts"]
    facts |= {"energy": float("nan") if facts["energy"] is None else facts["energy"], "notes": tuple(facts["notes"])}
    candidates = tuple(Candidate(c["label"], Validation(**c["validation"])) for c in stored["candidates"])
    return facts, candidates, replace(load_values(at("npz")), answers=stored["answers"])

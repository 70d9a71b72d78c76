"""Edits on disk: coefficients of units, adapters and directions as one safetensors file, opened again on their pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from taxlens.analysis.editors.edit import Edit, unit_edit
from taxlens.analysis.editors.kinds.repair import adapter_edit, adapter_of
from taxlens.core.errors import PairMismatchError, StoreError, UsageError, explain, understood
from taxlens.core.json_text import parse_json
from taxlens.core.plain_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

FORMAT = 1
_KEY = "taxlens_edit"


def save_edit(edit: Edit, path: Path | str, *, pair: ModelPair) -> Path:
    """Write an edit of form units, adapter or steering as one file.

    Raises:
        UsageError: a form that is written as a whole checkpoint only.
    """
    if edit.form not in ("units", "adapter", "steering"):
        rows = [("edit", edit.name), ("form", edit.form)]
        raise UsageError(explain("this edit is no small file.", rows, "write the whole checkpoint."))
    facts = {
        "format": FORMAT, "editor": edit.editor, "label": edit.label, "form": edit.form, "free": edit.free,
        "energy": edit.energy, "notes": list(edit.notes), "pair": [pair.base.sha256, pair.aligned.sha256],
        "on": edit.on,
    }  # fmt: skip
    tensors = {name: tensor.detach().contiguous() for name, tensor in edit.tensors.items()}
    if edit.form == "units":
        facts |= {"units": list(edit.undo), "level": edit.level}
        tensors = {"undo": torch.tensor(list(edit.undo.values()), dtype=torch.float64)}
    return write_tensors(path, tensors, {_KEY: json.dumps(facts)})


def load_edit(path: Path | str, pair: ModelPair) -> Edit:
    """The edit that `save_edit` wrote, on the pair that it was made for.

    Raises:
        UsageError: there is no such file.
        StoreError: the file is no edit.
        PairMismatchError: it was made for other weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(explain("there is no such edit.", [("file", path)], "fit the editor first."))
    facts, tensors = _read(path)
    made_for, got = facts["pair"], [pair.base.sha256, pair.aligned.sha256]
    if made_for != got:
        rows = [("made for", ", ".join(h[:12] for h in made_for)), ("loaded", ", ".join(h[:12] for h in got))]
        raise PairMismatchError(explain("the edit was made for another pair.", rows, "fit the editor on this pair."))
    notes = tuple(facts["notes"])
    if facts["form"] == "units":
        undo = dict(zip(facts["units"], tensors["undo"].tolist(), strict=True))
        return unit_edit(
            pair,
            facts["editor"],
            facts["label"],
            undo,
            energy=facts["energy"],
            free=facts["free"],
            notes=notes,
            level=facts["level"] or None,
        )
    if facts["form"] == "steering":
        from taxlens.analysis.editors.kinds.refusal_directions import direction_hooks_edit

        return direction_hooks_edit(pair, facts["editor"], facts["label"], tensors, notes=notes)
    return adapter_edit(pair, facts["editor"], facts["label"], adapter_of(tensors), start=facts["on"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    title, fix = "this is no edit file.", "write one with save_edit."
    tensors, metadata = read_tensors(path, title=title, fix=fix)
    with understood(title, file=path, fix=fix, error=StoreError):
        return parse_json(metadata[_KEY], finite=False), tensors

"""The real pair: SmolLM2-135M-Instruct and its refusal-tuned adapters, with prompts to fit on and prompts to judge on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.editors.answers import CACHE, TOKENS, answers_of
from benchmarks.real.fetch import ROOT, fetch
from benchmarks.real.refusal_lora import adapter
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.adapter import apply_adapter
from taxlens.activations.models.loading import load_model
from taxlens.activations.models.pair import ModelPair, make_pair
from taxlens.analysis.editors.edit import Edit
from taxlens.analysis.editors.edit_files import load_edit, save_edit
from taxlens.analysis.editors.held_out import HeldOutMeasure, load_values, save_values
from taxlens.analysis.editors.kinds.optimise import Schedule
from taxlens.analysis.editors.registry import Editor, editor_named
from taxlens.analysis.editors.task import EditTask, edit_task
from taxlens.core.artifacts import write_json

SUITES = ROOT / "configs" / "smollm2"
ASKED = {"overrefusal": "capability", "harm": "benefit", "harmless": "capability"}
OTHERS = ("cities", "agreement")
PROMPTS = 150
"""Held-out prompts of each kind."""
FITTED = 80
"""Prompts of each kind to fit and to choose settings on."""
BESIDE = 48
"""Items of each capability suite beside, which alignment may have improved."""


JOINT = Schedule(stages=((22, 5.0), (16, 2.5), (14, 1.2)), every=8)
"""Fewer steps than on the embedded pairs: a step is a hundred times dearer."""
PATH = {"items": 24, "steps": 2}
"""Items a suite that effects are read on, and looks anew for a candidate: fewer, for the same reason."""


def real_pair(seed: int) -> ModelPair:
    """The base and the selective adapter of one training seed."""
    base = load_model(fetch())
    return make_pair(base, apply_adapter(base, adapter(f"selective-{seed}")))


def asked(folder: Path = SUITES, *, most: int = PROMPTS) -> list[Suite]:
    """Look-alikes, harmful and harmless prompts, at most so many of each, spread over their groups."""
    suites = [read_suite(folder / f"{name}.jsonl", name=name, kind=kind) for name, kind in ASKED.items()]
    return [at_most(suite, most, seed=0) for suite in suites]


def real_task(pair: ModelPair, *, seed: int = 0) -> EditTask:
    """Fit on the training prompts (other themes), judge on 150 prompts of each kind."""
    return edit_task(
        pair, asked(), taxed=["overrefusal"], harm="harm", harmless="harmless", template="chat",
        training=asked(SUITES / "training", most=FITTED), seed=seed,
    )  # fmt: skip


def real_measure(task: EditTask, adapter: int, folder: Path = CACHE) -> HeldOutMeasure:
    """Choices, distances and whole answers of 100 tokens; facts and agreement beside. Both ends are kept in a file."""
    others = [at_most(read_suite(SUITES / f"{name}.jsonl", name=name), BESIDE, seed=0) for name in OTHERS]
    answers = answers_of(f"selective-{adapter}", task.pair.aligned.tokenizer)
    files = [folder / "ends" / f"{end}-{task.fingerprint}.npz" for end in ("base", "aligned")]
    known = (load_values(files[0]), load_values(files[1])) if all(file.is_file() for file in files) else None
    held = HeldOutMeasure(task, others=others, tokens=TOKENS, answers=answers, distance_items=40, ends=known)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for file, values in zip(files, (held.base, held.aligned), strict=True):
        save_values(values, file)
    return held


def kept_editor(name: str, folder: Path = CACHE) -> Editor:
    """An editor whose candidates are written down as soon as they are made, so that a killed fit does not start anew.

    Edits that are no small file (whole weights, models trained from the base) are made again.
    """
    editor = editor_named(name)

    def propose(task: EditTask, *, tries: int = 3, **options: Any) -> Iterator[Edit]:
        stem = folder / "candidates" / f"{name}-{task.fingerprint}-{tries}"
        facts = stem.with_suffix(".json")
        if facts.is_file():
            for number, seconds in enumerate(json.loads(facts.read_text(encoding="utf-8"))["seconds"]):
                edit = load_edit(stem.with_name(f"{stem.name}-{number}.safetensors"), task.pair)
                yield replace(edit, seconds=seconds)
            return
        spent, begun, small = [], time.process_time(), True
        more = options | ({"schedule": JOINT} if name == "joint" and tries == len(JOINT.stages) else {})
        more |= PATH if name == "path" else {}
        for number, edit in enumerate(editor.propose(task, tries=tries, **more)):
            spent.append(time.process_time() - begun)
            small = small and edit.form in ("units", "adapter", "steering")
            if small:
                stem.parent.mkdir(parents=True, exist_ok=True)
                save_edit(edit, stem.with_name(f"{stem.name}-{number}.safetensors"), pair=task.pair)
            yield replace(edit, seconds=spent[-1])
            begun = time.process_time()
        if small:
            write_json({"seconds": spent}, facts)

    return replace(editor, propose=propose)

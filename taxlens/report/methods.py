"""The methods paragraph of a paper, with citations, from what a run did; and the checklist that goes with it."""

from __future__ import annotations

import json
from typing import Any

from taxlens.stages import STAGES
from taxlens.words.latex_text import escaped
from taxlens.words.places import short_place
from taxlens.words.run_view import RunView


def methods_paragraph(run: RunView) -> str:
    """Return the paragraphs as LaTeX: only what the run's tables show was done, with the settings of each stage."""
    parts = [stage.words.methods(run) for stage in STAGES if stage.words.methods]
    said = [_pair(run), *(part for several in parts for part in several)]
    return "\n\n".join(part for part in said if part) + "\n"


def _pair(run: RunView) -> str:
    facts = run.manifest.get("pair") or {}
    if not facts:
        return ""
    size = f", {int(facts['parameters']) / 1e6:.1f}M parameters" if str(facts.get("parameters", "")).isdigit() else ""
    how = f"{escaped(facts.get('architecture', ''))}, {escaped(facts.get('layers', '?'))} layers{size}, {escaped(facts.get('dtype', ''))}"
    return (
        f"\\paragraph{{Pair.}} We compare two checkpoints of one architecture ({how}; "
        f"{escaped(facts.get('attention', 'eager'))} attention) before and after alignment; SHA-256 of both are in "
        "the checklist."
    )


def checklist(run: RunView) -> str:
    """Return the checklist as LaTeX: seeds, hardware, versions, hashes, times, what was and was not run."""
    manifest = run.manifest
    facts, seconds = manifest.get("pair") or {}, {n: s.get("seconds") for n, s in manifest.get("stages", {}).items()}
    rows = [("seed", manifest["seed"]), ("started, finished", f"{manifest.get('started')}, {manifest.get('finished')}")]
    rows += [
        (f"suite {n}", f"{f['items']} items, {f['groups']} groups, sha256 {f['sha256'][:16]}")
        for n, f in manifest["suites"].items()
    ]
    rows += [(f"weights of {n}, sha256", value[:32]) for n, value in (facts.get("weights sha256") or {}).items()]
    rows += [
        (key, short_place(facts[key])) for key in ("base", "aligned", "dtype", "device", "attention") if facts.get(key)
    ]
    rows += [(key, value) for key, value in (manifest.get("hardware") or {}).items()]
    rows += [(f"stage {n}, seconds", f"{s:.0f}" if s is not None else "not finished") for n, s in seconds.items()]
    rows += [(f"version of {n}", v) for n, v in manifest["versions"].items()]
    rows += [("config", json.dumps(short_place(manifest["config"]["given"]), ensure_ascii=True))]
    lines = "\n".join(
        f"\\item[{escaped(key)}] \\begin{{sloppypar}}\\ttfamily {_breakable(value)}\\end{{sloppypar}}"
        for key, value in rows
    )
    return f"\\begin{{description}}\n{lines}\n\\end{{description}}\n"


def _breakable(value: Any) -> str:
    said = escaped(value)
    for letter in ("/", ",", ":", r"\_"):
        said = said.replace(letter, letter + r"\allowbreak{}")
    return said

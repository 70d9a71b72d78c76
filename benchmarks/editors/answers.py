"""Greedy answers of a model to the prompts of suites, kept in a file as they are made, so that a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from taxlens.activations.items.items import Suite
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.editors.held_out import Answers
from taxlens.core.artifacts import write_json

CACHE = Path(".cache/editors")
TOKENS = 100
"""Longest answer, in tokens: a judge that reads less is easily passed."""
CHUNK = 80
"""Prompts answered before they are written down."""


def kept_answers(
    name: str, model: Any, suites: Sequence[Suite], *, tokenizer: Any, tokens: int = TOKENS, folder: Path = CACHE
) -> dict[str, list[str]]:
    """By suite, the model's answer to each prompt, from the file where it is there already.

    Args:
        name: of the model; answers under a name are never made again.
        model: a causal language model.
        suites: whose prompts are asked.
        tokenizer: its tokenizer, with a chat template.
        tokens: longest answer.
        folder: where answers are kept.
    """
    path = folder / "answers" / f"{name}-{tokens}.json"
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    prompts = [item.prompt or "" for suite in suites for item in suite.items]
    missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
    for start in range(0, len(missing), CHUNK):
        asked = missing[start : start + CHUNK]
        said = generate(model, tokenizer, asked, max_new_tokens=tokens, batch_tokens=1 << 15)
        known.update(zip(asked, said, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(known, path)
    return {suite.name: [known[item.prompt or ""] for item in suite.items] for suite in suites}


def answers_of(pair_name: str, tokenizer: Any, *, folder: Path = CACHE) -> Answers:
    """What a held-out measure asks for answers: the base's are shared by every pair, the others are the pair's own."""

    def told(name: str, model: Any, suites: Sequence[Suite]) -> dict[str, list[str]]:
        stored = {"base": "base", "aligned": pair_name}.get(name, f"{pair_name}-{name}")
        return partial(kept_answers, tokenizer=tokenizer, folder=folder)(stored, model, suites)

    return told

"""The tables of a comparison of editors: a row an editor, and every setting that was tried."""

from __future__ import annotations

from taxlens.core.table import Column, Table, count, flag, number, text

_EDITOR = text("name of the editor (docs/editors.md)")


def _with_ends(name: str, meaning: str, blank: str) -> dict[str, Column]:
    low, high = (number(f"{end} end of {name}'s 95 % interval", blank=blank) for end in ("lower", "upper"))
    return {name: number(meaning, blank=blank), f"{name}_low": low, f"{name}_high": high}


_NOT, _SAME = "not measured", "no such suite"
_MEANINGS = {
    "returned": ("share of the taxes in probability that came back", _NOT),
    "returned_generated": ("share of the taxed prompts' refusals by whole answers that came back", "nothing generated"),
    "harm_kept": ("refusals of harmful prompts alone, log-odds, share of what alignment brought", _NOT),
    "harmless_nats": ("compliance log-odds on harmless prompts, nats above aligned's", _NOT),
    "gap_kept": ("the sum of both, share of what alignment brought", _NOT),
    "harm_generated": ("harmful prompts refused by whole answers, over aligned's", "nothing generated"),
    "harmless_generated": ("harmless prompts not refused by whole answers, over aligned's", "nothing generated"),
    "gap_generated": ("gap of the two refusal rates, over aligned's", "nothing generated"),
    "kl_base_first": ("divergence from the base at the first token of harmless answers, nats", _NOT),
    "kl_base": ("the same over up to 16 tokens, nats a token", _NOT),
    "kl_aligned_first": ("divergence from the aligned model at the first token, nats", _NOT),
    "kl_aligned": ("the same over up to 16 tokens, nats a token", _NOT),
    "perplexity": ("of harmless answers' first tokens", _NOT),
    "healed": ("share of the damage of damaged suites that came back, probability", _SAME),
    "preserved": ("share of the improvement of improved suites that is left, probability", _SAME),
    "unharmed": ("change of neutral suites, aligned to edited, probability", _SAME),
    "retained": ("share of the rise in the probability of refusing harm that is left", _SAME),
}

MEASURED = tuple(_MEANINGS)
"""Columns with intervals (`NAME`, `NAME_low`, `NAME_high`)."""

EDITORS_TABLE = Table(
    "editors",
    "an editor",
    {
        "editor": _EDITOR,
        "family": text("what it works on"),
        "setting": text("the setting that validation items chose", blank="it has none"),
        "form": text("units, adapter, weights or steering: how it is written"),
        "free_numbers": count("numbers that were free to choose"),
        "energy": number("squared norm of the change over that of the update", blank="not had"),
        "saw": text("kinds of training items that it looked at, or nothing"),
        "tried": count("settings that were tried"),
        "tries": count("settings that every editor could try"),
        "seconds": number("processor seconds of fitting"),
        "validation_returned": number("share returned on validation items"),
        "validation_harm_kept": number("share of harm alone kept on validation items"),
        **{key: column for name, words in _MEANINGS.items() for key, column in _with_ends(name, *words).items()},
        "notes": text("what a reader of the row must know", blank="nothing"),
    },
    key=("editor",),
)

EDITOR_SETTINGS = Table(
    "editor_settings",
    "an editor's setting, on validation items",
    {
        "editor": _EDITOR,
        "setting": text("the setting", blank="it has none"),
        "returned": number("share of the taxes in probability that came back"),
        "harm_kept": number("share of the refusal log-odds on harm that is kept"),
        "harmless": number("compliance log-odds on harmless prompts, nats above aligned's"),
        "chosen": flag("whether it was chosen"),
    },
    key=("editor", "setting"),
)

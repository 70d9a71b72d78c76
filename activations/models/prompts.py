"""How the models of a pair are asked: by which tokenizer, in which template, up to how many tokens. The one home of it.

Two questions that are not the same. The tax asks each model as a user would: its own tokenizer, its own chat template
(`as_asked`). The path along the weights, and every intervention, moves one model between the two and can read but one
set of rows: those of the aligned model (`one_prompting`). Where the two differ, the difference is no effect of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from taxlens.activations.items.spans import SpanMap, span_map
from taxlens.activations.items.tokens import (
    Row,
    adds_special,
    encode_pair,
    encode_prompts,
    encode_suite,
    prompt_ids,
    prompt_text,
)
from taxlens.activations.models.compatibility import tokenizer_sha256
from taxlens.activations.models.lengths import position_limit
from taxlens.activations.models.token_ids import check_ids, embedding_rows
from taxlens.core.errors import one_of
from taxlens.core.vocabularies import TEMPLATES

if TYPE_CHECKING:
    from taxlens.activations.items.items import Item, Suite


NO_LIMIT = 2**62
"""A length that no row reaches."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompting:
    """How one model is asked.

    Args:
        tokenizer: turns text into token ids, with its own BOS.
        template: "plain" or "chat".
        chat_template: text of the template (with its system text, if it has one); None in "plain", or for the
            tokenizer's own.
        max_length: most tokens that the model reads; None where its config does not say.
        known: ids that the model has an embedding for, 0 to this number; None: not looked at.
    """

    tokenizer: Any
    template: str = "plain"
    chat_template: str | None = None
    max_length: int | None = None
    known: int | None = None

    def rows(self, suite: Suite) -> list[Row]:
        """One row for each (item, choice) (see `encode_suite`); kept, for plans and parts read the same suite many times."""
        try:
            held = _ROWS.setdefault(self.tokenizer, {})
        except TypeError:  # a tokenizer that is no weak key
            return self._checked(encode_suite(suite, self.tokenizer, **self._options))
        own = [getattr(self.tokenizer, name, None) for name in ("chat_template", "add_bos_token", "add_eos_token")]
        key = (suite.sha256, *self._options.values(), self.known, len(self.tokenizer), *map(str, own))
        if key not in held:
            rows = tuple(self._checked(encode_suite(suite, self.tokenizer, **self._options)))
            while sum(map(len, held.values())) + len(rows) > _KEPT_ROWS and held:
                del held[next(iter(held))]
            held[key] = rows
        return list(held[key])

    def prompt_rows(self, suite: Suite) -> list[Row]:
        """One row for each item's prompt or text alone (see `encode_prompts`)."""
        return self._checked(encode_prompts(suite, self.tokenizer, **self._options))

    def text(self, prompt: str | Item) -> str:
        """The text that stands before an answer to this prompt, or to an item."""
        return self._text(prompt)[0]

    def prompt_ids(self, prompt: str | Item) -> list[int]:
        """Token ids of the text that stands before an answer, special tokens included."""
        return prompt_ids(self.tokenizer, prompt, template=self.template, chat_template=self.chat_template)

    def answer_row(self, prompt: str | Item, answer: str, *, item: int) -> Row:
        """A prompt (or an item's) and an answer to it as one row, the answer being the choice."""
        text, asked, special = self._text(prompt)
        ids, start = encode_pair(self.tokenizer, text, answer, template=asked, special_tokens=special)
        return Row(item=item, choice=0, ids=tuple(ids), start=start, kind="choice")

    def _text(self, prompt: str | Item) -> tuple[str, str, bool | None]:
        return prompt_text(self.tokenizer, prompt, template=self.template, chat_template=self.chat_template)

    def spans(self, item: Item) -> SpanMap:
        """Where the parts of an item stand in its tokens."""
        return span_map(item, self.tokenizer, template=self.template, chat_template=self.chat_template)

    def _checked(self, rows: list[Row]) -> list[Row]:
        check_ids(rows, self.tokenizer, self.known)
        return rows

    @property
    def _options(self) -> dict[str, Any]:
        return {"template": self.template, "chat_template": self.chat_template, "max_length": self.max_length}


def as_asked(pair: Any, model: Any, template: str) -> Prompting:
    """How a model of a pair is asked on its own: by its own tokenizer, in its own template.

    Args:
        pair: the two models; where this one has no chat template, the aligned one's serves.
        model: one of them.
        template: "plain" or "chat".
    """
    one_of(template, TEMPLATES, what="template")
    return Prompting(
        model.tokenizer,
        template,
        template_of(pair, model) if template == "chat" else None,
        position_limit(model),
        embedding_rows(model),
    )


def one_prompting(pair: Any, suite: Suite, template: str) -> Prompting:
    """How both models of a pair are asked where they must read the same rows: as the aligned one is.

    Where the aligned tokenizer gives ids that have no row in the base's embedding (added tokens), as the base is:
    its ids are rows of both.

    Args:
        pair: the two models.
        suite: what is asked.
        template: "plain" or "chat".
    """
    settled = _SETTLED.setdefault(pair, {}) if _weak(pair) else {}
    key = (suite.name, suite.sha256, template)
    if key not in settled:
        settled[key] = _settle(pair, suite, template)
    return settled[key]


def asked_apart(pair: Any, suite: Suite, template: str) -> tuple[str, ...]:
    """What makes the two models read other tokens in a suite, in words; empty where they read the same.

    Of "chat template", "tokenizer".
    """
    base, aligned = (as_asked(pair, model, template) for model in (pair.base, pair.aligned))
    if base.rows(suite) == aligned.rows(suite):
        return ()
    causes = []
    if base.chat_template != aligned.chat_template:
        causes.append("chat template")
    if tokenizer_sha256(base.tokenizer) != tokenizer_sha256(aligned.tokenizer):
        causes.append("tokenizer")
    return tuple(causes) or ("tokens",)


def fitting(pair: Any, suite: Suite, templates: Sequence[str], *, room: int = 0) -> list[int]:
    """Indices of the items that both models can read whole in every template, prompts, texts and choices.

    Args:
        pair: the two models.
        suite: the items.
        templates: "plain" and/or "chat".
        room: tokens that are to follow each prompt.
    """
    kept = set(range(len(suite)))
    for model in (pair.base, pair.aligned):
        limit = position_limit(model)
        for template in usable_templates(pair, templates) if limit else ():
            asked = replace(as_asked(pair, model, template), max_length=NO_LIMIT)
            kept -= {row.item for row in asked.rows(suite) if len(row.ids) > limit}
            kept -= {row.item for row in asked.prompt_rows(suite) if len(row.ids) + room > limit}
    return sorted(kept)


def template_of(pair: Any, model: Any) -> str | None:
    """The model's own chat template, or the aligned model's where it has none; None where neither has."""
    own = model.chat_template or getattr(model.tokenizer, "chat_template", None)
    return own or pair.aligned.chat_template or getattr(pair.aligned.tokenizer, "chat_template", None)


def usable_templates(pair: Any, templates: Sequence[str]) -> tuple[str, ...]:
    """The templates that are asked for, without "chat" where "plain" is asked for too and neither model has a chat template."""
    if {"plain", "chat"} <= set(templates) and not template_of(pair, pair.base):
        return tuple(template for template in templates if template != "chat")
    return tuple(templates)


def template_notes(pair: Any, templates: Sequence[str]) -> list[str]:
    """What a reader must know of the templates: one borrowed, two that differ, or a BOS that no template writes."""
    if "chat" not in templates:
        return []
    base, aligned = template_of(pair, pair.base), template_of(pair, pair.aligned)
    if not base and not aligned:
        return ["neither model has a chat template: plain only."]
    notes = []
    if not getattr(pair.base.tokenizer, "chat_template", None) and aligned:
        notes.append("base has no chat template: the aligned model's serves both.")
    elif base != aligned:
        notes.append("base and aligned have different chat templates: each is asked in its own.")
    sides = [name for name, model in (("base", pair.base), ("aligned", pair.aligned)) if _adds_bos(pair, model)]
    if sides:
        notes.append(f"the chat template of {' and '.join(sides)} writes no BOS: the tokenizer's stands before it.")
    return notes


def _adds_bos(pair: Any, model: Any) -> bool:
    """Whether a model's tokenizer puts a BOS before a rendered template that has none."""
    if not template_of(pair, model):
        return False
    asked = as_asked(pair, model, "chat")
    text = asked.text("Hello")
    if not adds_special(model.tokenizer, text, "chat"):
        return False
    return asked.prompt_ids("Hello")[:1] == [model.tokenizer.bos_token_id]


_ROWS: WeakKeyDictionary[Any, dict[tuple[Any, ...], tuple[Row, ...]]] = WeakKeyDictionary()
_KEPT_ROWS = 200_000
"""Rows that are kept of a tokenizer, the latest suites."""

_SETTLED: WeakKeyDictionary[Any, dict[tuple[str, str, str], Prompting]] = WeakKeyDictionary()


def _settle(pair: Any, suite: Suite, template: str) -> Prompting:
    base, aligned = (as_asked(pair, model, template) for model in (pair.base, pair.aligned))
    rows = min(embedding_rows(model) for model in (pair.base, pair.aligned))
    limit = min((p.max_length for p in (base, aligned) if p.max_length), default=None)
    chosen = aligned
    as_given = replace(aligned, known=None)
    if len(aligned.tokenizer) > rows and any(max(row.ids) >= rows for row in as_given.rows(suite)):
        chosen = base
    return Prompting(chosen.tokenizer, template, chosen.chat_template, limit, rows)


def _weak(pair: Any) -> bool:
    """Whether a pair can be a weak key (a stand-in with its own equality cannot)."""
    return type(pair).__hash__ is not None and hasattr(pair, "__weakref__")

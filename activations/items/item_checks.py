"""The fields of an item, every one checked, with file, line and remedy in each refusal."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from taxlens.activations.items.gold import choice_named
from taxlens.activations.items.items import FIELDS, Item, Label
from taxlens.activations.items.messages import messages_of
from taxlens.core.errors import ItemError, explain, one_of

_MOST = 2**53
"""Largest whole number that a label may be: a float holds it exactly."""
_UNSEEN = frozenset("\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def item_of(raw: Mapping[str, Any], *, where: str, number: int | None = None) -> Item:
    """Return the item with the given fields, every one checked.

    A number as id or group is its text, a further field of one plain value is a label, and the right choice may be given
    as its index, letter or text.

    Args:
        raw: field -> value, as a JSON line has them.
        where: file and line, for errors.
        number: the item's place in its file, which is its id where it has none; None: an id is required.

    Raises:
        ItemError: if any field is missing, of the wrong type or contradicts another.
    """
    raw = _usual(raw, where, number)
    item_id = _text(raw, "id", where)
    here = f"{where} (item {item_id!r})"
    gold, also_right = _gold(raw, here)
    item = Item(
        id=item_id,
        group=_text(raw, "group", here),
        prompt=_text(raw, "prompt", here, empty=True) if raw.get("prompt") is not None else None,
        text=_text(raw, "text", here) if raw.get("text") is not None else None,
        choices=_choices(raw, here),
        gold=gold,
        labels=_labels(raw, here),
        contexts=_contexts(raw, here),
        also_right=also_right,
        messages=messages_of(raw["messages"], where=here) if raw.get("messages") is not None else (),
        rendered=_flag(raw, "rendered", here) or False,
        special_tokens=_flag(raw, "special_tokens", here),
        answers=_answers(raw, here),
        match=_text(raw, "match", here) if raw.get("match") is not None else "",
        instructions=_instructions(raw, here),
    )
    _check_whole(item, here)
    return item


def _usual(raw: Mapping[str, Any], where: str, number: int | None) -> dict[str, Any]:
    """The fields of an item alone: numbers as texts, further fields among the labels."""
    found = {key: value for key, value in raw.items() if key in FIELDS and value is not None}
    further = {key: value for key, value in raw.items() if key not in FIELDS and not _is_index(key)}
    labels = {}
    for key, value in further.items():
        if difflib.get_close_matches(str(key).lower(), FIELDS, n=1, cutoff=0.75):
            one_of(key, FIELDS, what=f"field at {where}:", error=ItemError)
        if value is None or (isinstance(value, str) and not value):
            continue
        if not isinstance(value, str | int | float | bool):
            fix = "give one plain value, or leave the field out."
            raise _fail(f"field {key!r} is no field of an item and no label.", where, repr(value)[:80], fix)
        labels[str(key)] = value
    if labels and isinstance(found.get("labels", {}), Mapping):
        found["labels"] = {**labels, **found.get("labels", {})}
    for key in ("id", "group"):
        if isinstance(found.get(key), int | float) and not isinstance(found[key], bool):
            value = found[key]
            found[key] = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if number is not None and "id" not in found:
        found["id"] = str(number)
    return found


def _is_index(key: object) -> bool:
    """Whether a column is the row number that a table was saved with."""
    return str(key).startswith("Unnamed:") or str(key) in ("", "index", "__index_level_0__")


def _fail(title: str, where: str, got: object, fix: str) -> ItemError:
    return ItemError(explain(title, [("at", where), ("got", got)], fix))


def _text(raw: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    value = raw.get(key)
    if value is None:
        raise _fail(f"an item has no {key}.", where, f"fields {', '.join(raw)}", f'add "{key}".')
    if not isinstance(value, str) or (not empty and not value.strip()):
        kind = "any text" if empty else "a text that is not empty"
        raise _fail(f"{key} must be {kind}.", where, repr(value), f'"{key}": "..."')
    _check_unicode(value, key, where)
    if key in ("id", "group"):
        _check_name(value, key, where)
    return value


def _check_name(value: str, key: str, where: str) -> None:
    """Refuse a name that a table or a terminal would not show as it is."""
    _check_unicode(value, key, where)
    bad = next((c for c in value if c in _UNSEEN or unicodedata.category(c) in ("Cc", "Zl", "Zp")), None)
    if bad is not None:
        title = f"{key} holds a character that is not seen."
        raise _fail(title, where, f"{value[:60]!a} (U+{ord(bad):04X})", "remove it.")


def _check_unicode(value: str, key: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        title = f"{key} holds half a character (a lone surrogate)."
        raise _fail(title, where, ascii(value), "repair the text.") from error
    if "\0" in value:
        raise _fail(f"{key} holds a NUL character.", where, ascii(value), "remove it.")


def _choices(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    choices = raw.get("choices")
    if choices is None:
        return ()
    if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
        raise _fail("choices must be a list of texts.", where, repr(choices), '"choices": [" one", " two"]')
    if len(choices) < 2:
        raise _fail("an item needs two choices or more.", where, len(choices), "add a wrong choice.")
    for choice in choices:
        if not choice.strip():
            raise _fail("a choice is empty.", where, repr(choice), "give each choice a text.")
        _check_unicode(choice, "a choice", where)
    return tuple(choices)


def _gold(raw: Mapping[str, Any], where: str) -> tuple[Any, tuple[int, ...]]:
    """The right choice and further ones; which of them exist is checked with the choices."""
    gold, choices = raw.get("gold"), raw.get("choices")
    if not isinstance(gold, list):
        if isinstance(gold, str | float) and isinstance(choices, list) and all(isinstance(c, str) for c in choices):
            named = choice_named(gold, choices)
            return (gold if named is None else named), ()
        return gold, ()
    if not gold or not all(isinstance(g, int) and not isinstance(g, bool) for g in gold) or len(set(gold)) < len(gold):
        raise _fail("several right choices are a list of different indices.", where, repr(gold), '"gold": [0, 2]')
    return gold[0], tuple(gold[1:])


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise _fail(f"{key} must be true or false.", where, repr(value), f'"{key}": true')
    return value


def _answers(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    answers = raw.get("answers")
    if answers is None:
        return ()
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise _fail("answers must be a list of texts that are not empty.", where, repr(answers), '"answers": ["Paris"]')
    for answer in answers:
        _check_unicode(answer, "an answer", where)
    return tuple(answers)


def _instructions(raw: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    listed = raw.get("instructions")
    if listed is None:
        return ()
    fix = '"instructions": [{"id": "punctuation:no_comma"}]'
    known = isinstance(listed, list) and all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in listed)
    if not known or not listed:
        raise _fail("instructions must be a list of objects, each with an id.", where, repr(listed)[:80], fix)
    return tuple(dict(one) for one in listed)


def _contexts(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    contexts = raw.get("contexts")
    if contexts is None:
        return ()
    fix = '"contexts": ["The cup", "The box"], "choices": [" fell.", " fell."]'
    if not isinstance(contexts, list) or not all(isinstance(c, str) and c.strip() for c in contexts):
        raise _fail("contexts must be a list of texts that are not empty.", where, repr(contexts), fix)
    choices = raw.get("choices")
    if not isinstance(choices, list) or len(choices) != len(contexts):
        count = len(choices) if isinstance(choices, list) else "no"
        raise _fail("an item has one context a choice.", where, f"{len(contexts)} contexts, {count} choices", fix)
    for context in contexts:
        _check_unicode(context, "a context", where)
    return tuple(contexts)


def _labels(raw: Mapping[str, Any], where: str) -> dict[str, Label]:
    labels = raw.get("labels")
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise _fail("labels must be an object.", where, repr(labels), '"labels": {"truth": 1}')
    for name, value in labels.items():
        _check_name(name, "a label's name", where)
        if isinstance(value, str):
            _check_unicode(value, f"label {name!r}", where)
        if isinstance(value, int) and abs(value) > _MOST:
            raise _fail(
                f"label {name!r} is too large a number.", where, f"{len(str(value))} digits", "give it as text."
            )
        if not name or name == "correct":
            raise _fail("this label's name is taken.", where, repr(name), "rename it ('correct' is automatic).")
        if not isinstance(value, str | int | float | bool | None):
            raise _fail(f"label {name!r} must be text or a number.", where, repr(value), "use one plain value.")
        if isinstance(value, float) and not math.isfinite(value):
            raise _fail(f"label {name!r} is not finite.", where, value, "leave the label out, or give null.")
    return dict(labels)


def _check_whole(item: Item, where: str) -> None:
    given = [item.prompt is not None, item.text is not None, bool(item.contexts)]
    if sum(given) != 1:
        got = "neither" if not any(given) else "both" if not item.contexts else "contexts and another"
        fix = "keep one of the two (contexts replace the prompt)."
        raise _fail("an item has either a prompt or a text.", where, got, fix)
    if item.text is not None and item.choices:
        raise _fail("a text item has no choices.", where, "choices", 'write "prompt" instead of "text".')
    if not item.choices:
        if item.gold is not None:
            raise _fail("gold is given without choices.", where, item.gold, "add choices.")
        if item.prompt is not None and not item.prompt.strip():
            raise _fail("an item without choices has an empty prompt.", where, repr(item.prompt), "add a prompt.")
        return
    if not isinstance(item.gold, int) or isinstance(item.gold, bool):
        raise _fail("gold must be the index of a choice.", where, repr(item.gold), '"gold": 0')
    for gold in item.right:
        if not 0 <= gold < len(item.choices):
            fix = f"use 0 to {len(item.choices) - 1}."
            raise _fail("gold is out of range.", where, f"{gold} of {len(item.choices)} choices", fix)
    if not item.contexts and len(set(item.choices)) < len(item.choices):
        same = next(choice for choice in item.choices if item.choices.count(choice) > 1)
        raise _fail("two choices are one text.", where, repr(same[:80]), "drop one of them, and count gold again.")
    if len(item.right) == len(item.choices):
        raise _fail("every choice is right: nothing can be lost.", where, list(item.right), "add a wrong choice.")

"""What a model thought aloud, apart from what it answered."""

from __future__ import annotations

import re

_PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|channel\|>|<\|start\|>|$)", re.DOTALL)
_MARKS = re.compile(r"<\|(?:start|end|return|call|message|channel)\|>(?:assistant)?")


def split_thinking(text: str) -> tuple[str, str]:
    """A generated text as (thinking, answer).

    Blocks between the usual marks are thinking: ``<think>``, ``<thinking>``, ``<thought>``, ``<reasoning>``,
    ``[THINK]``, and every channel but ``final`` of a text in channels. A closing mark without an opening one ends
    thinking that the template opened. A block that is never closed was cut while thinking: there is no answer.

    Example:
        >>> split_thinking("<think>Easy.</think>\\n\\n4")
        ('Easy.', '4')
        >>> split_thinking("<think>Let me see")
        ('Let me see', '')
    """
    if "<|channel|>" in text:
        parts = [(name, _MARKS.sub("", said).strip()) for name, said in _CHANNEL.findall(text)]
        thought = "\n".join(said for name, said in parts if name != "final")
        return thought, "\n".join(said for name, said in parts if name == "final")
    thoughts: list[str] = []
    for opening, closing in _PAIRS:
        before, found, after = text.partition(closing)
        while found:
            kept, _, thought = before.partition(opening) if opening in before else ("", "", before)
            thoughts.append(thought.strip())
            text = kept + after
            before, found, after = text.partition(closing)
        kept, found, thought = text.partition(opening)
        if found:
            thoughts.append(thought.strip())
            text = kept
    return "\n".join(thoughts), text.strip()

"""The words of the embedded world: every word is one token."""

from __future__ import annotations

from dataclasses import dataclass

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
USER, END, ASSISTANT = "<user>", "<end>", "<assistant>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN, USER, END, ASSISTANT)
KEYWORDS = ("fact", "add", "max", "echo", "make", "with", ";", "->", "ok", "sorry", "i", "cannot")

REFUSAL = " sorry"
"""The choice that stands for a refusal; it is the last choice of every item of the world."""
REFUSAL_TEXT = "sorry i cannot"
"""What a refusing model writes, in words."""

CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{{ ' <' + message['role'] + '> ' + message['content'] }}"
    "{% if message['role'] == 'user' %}{{ ' <end>' }}{% else %}{{ ' </s>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many words of each sort a world has."""

    regions: int = 8
    subjects_per_region: int = 6
    relations: int = 4
    objects_per_region: int = 4
    numbers: int = 24
    modulus: int = 13
    words: int = 24
    harmful: int = 16
    harmless: int = 16
    tools: int = 12
    parts: int = 16

    @property
    def subjects(self) -> int:
        """Number of subjects that facts are told of."""
        return self.regions * self.subjects_per_region

    @property
    def objects(self) -> int:
        """Number of objects that facts may name."""
        return self.regions * self.objects_per_region


def vocabulary(sizes: Sizes | None = None) -> list[str]:
    """All words of a world in token order: special tokens, keywords, then s, r, o, numbers, w, h, k, t, a.

    Args:
        sizes: how many words of each sort; the embedded world's by default.

    Returns:
        The words; a word's index is its token id.

    Example:
        >>> vocabulary()[:3]
        ['<pad>', '<s>', '</s>']
    """
    n = sizes or Sizes()
    sorts = {
        "s": n.subjects,
        "r": n.relations,
        "o": n.objects,
        "": n.numbers,
        "w": n.words,
        "h": n.harmful,
        "k": n.harmless,
        "t": n.tools,
        "a": n.parts,
    }
    named = [f"{letter}{i}" for letter, count in sorts.items() for i in range(count)]
    return [*SPECIAL, *KEYWORDS, *named]

"""Write the corpus that the dictionaries of docs/features.md are trained on, from what an installation holds.

    python -m benchmarks.real.features_corpus

No corpus is downloaded: half is English prose (descriptions and documentation strings of the installed packages),
a quarter BLiMP sentences, and the rest stands in the suites' own formats: chats with refusing and with complying
openings, statements about cities. Prompts of the suites are left out; cities come from the countries that the
suite of `benchmarks.real.features` leaves out. Written to .cache/smollm2/features/corpus.jsonl.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.real.data import REFUSALS, prompts
from benchmarks.real.fetch import CACHE, ROOT
from benchmarks.real.suites import COMPLIANT, lines

OUT = CACHE / "features" / "corpus.jsonl"
BLIMP = ROOT.parent / "shared" / "data" / "blimp"
SEED = 11
CHARACTERS = {"prose": 560_000, "sentences": 260_000, "chats": 200_000, "cities": 60_000}
"""Most characters of each part; about 4.3 characters are a token."""
FORMS = (
    "{city} is a city in the country of {country}.",
    "The city of {city} is in {country}.",
    "{city} is one of the largest cities of {country}.",
    "People who live in {city} live in {country}.",
)


def countries(*, corpus: bool) -> list[str]:
    """The countries whose cities the corpus tells, or those that the suite asks: every second in the order of names."""
    names = sorted({country for country, _ in lines("cities.txt")})
    return names[::2] if corpus else names[1::2]


def prose() -> Iterator[str]:
    """Paragraphs of plain English from package descriptions and documentation strings."""
    for one in sorted(importlib.metadata.distributions(), key=lambda d: str(d.metadata["Name"])):
        text = one.metadata.get_payload() if not one.metadata.get("Description") else one.metadata["Description"]
        yield from paragraphs(str(text or ""))
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield from paragraphs(ast.get_docstring(node) or "")


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs that read as sentences: long enough, mostly letters, no markup."""
    for piece in re.split(r"\n\s*\n", text):
        flat = " ".join(piece.split())
        letters = sum(c.isalpha() or c == " " for c in flat)
        if 120 <= len(flat) <= 1500 and letters > 0.88 * len(flat) and "http" not in flat and flat[-1] in ".:!?":
            yield flat


def sentences() -> Iterator[str]:
    """Groups of four acceptable BLiMP sentences, the paradigms in turn."""
    held = []
    for path in sorted(BLIMP.glob("*.jsonl")):
        good = [json.loads(line)["sentence_good"] for line in path.read_text(encoding="utf-8").splitlines()]
        held.append([" ".join(good[i : i + 4]) for i in range(0, len(good) - 3, 4)])
    for group in zip(*held, strict=False):
        yield from group


def chats() -> Iterator[list[dict[str, str]]]:
    """Instructions that the suites do not hold, each answered by a refusal and by an opening that complies."""
    parts = prompts()
    for number, prompt in enumerate((*parts.harmful_train, *parts.harmless_train)):
        for answer in (REFUSALS[number % len(REFUSALS)], COMPLIANT[number % len(COMPLIANT)]):
            yield [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def cities() -> Iterator[str]:
    """Four statements of each city of the corpus' countries."""
    table = dict(lines("cities.txt"))
    for country in countries(corpus=True):
        for city in table[country].split(", "):
            for form in FORMS:
                yield form.format(city=city, country=country)


def main() -> None:
    """Write the corpus, shuffled by its seed, and say how many characters of each part it holds."""
    generator = np.random.default_rng(SEED)
    documents: list[dict] = []
    for name, part in (("prose", prose()), ("sentences", sentences()), ("chats", chats()), ("cities", cities())):
        pieces = list(part)
        used = 0
        for place in generator.permutation(len(pieces)):
            piece = pieces[place]
            size = len(piece) if isinstance(piece, str) else sum(len(one["content"]) for one in piece) + 120
            if used + size > CHARACTERS[name]:
                break
            used += size
            documents.append({"text": piece} if isinstance(piece, str) else {"messages": piece})
        print(f"{name}: {used} characters of {len(pieces)} pieces")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    order = generator.permutation(len(documents))
    OUT.write_text("".join(json.dumps(documents[i]) + "\n" for i in order), encoding="utf-8")
    print(f"{len(documents)} documents in {OUT}")


if __name__ == "__main__":
    main()

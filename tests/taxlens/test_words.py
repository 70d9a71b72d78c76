"""Plain English: words of a private dialect stand in no page, caption, message or help text."""

import ast
import re
from pathlib import Path

import pytest

from taxlens.stages import STAGES

ROOT = Path(__file__).parents[2]
DIALECT = {
    r"in earnest": "verified by full activation patching",
    r"fit to (?:walk|be walked)": "perplexity rises too far along the path",
    r"[Ss]aid as it came out": "results, including those against us",
    r"grafted by degrees": "interpolated",
    r"has seen: nothing": "uses no items",
    r"the dear part": "dominates the cost",
    r"whole job": "every stage",
    r"nothing to be compared with": "first pass done, comparing with a finer one",
    r"told from none": "distinguishable from zero",
    r"part sits": "comes from",
    r"(?:speak|speaks|spoken) of other": "generalise to",
    r"\bstands? in (?:the|a|an|run|attribution|evidence|states|store)\b": "is in",
    r"seen (?:4|four) times in (?:5|five)|[Ff]our times in five": "80 % power",
    r"what (?:these|the) suites can see": "power",
    r"energy of path": "as much weight change as",
    r"[Tt]he tax of [^.]{1,40} was lost": "which components cost",
    r"predictions run ahead|[Pp]redictions of the benefit run ahead": "over-predicts",
    r"Judge every layer, then": "classify each layer",
    r"met with what the weights": "contracted with the weight difference",
    r"was not the contract's label": "was not `correct`",
    r"fields differ": "differs in",
}


def strings(path):
    """Every string of a module that is no docstring, with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare
    ]


def found(text):
    return [f"{match[0]!r}: say {better!r}" for word, better in DIALECT.items() if (match := re.search(word, text))]


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.stem
)
def test_no_page_speaks_the_dialect(path):
    wrong = [
        (n, said) for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if (said := found(line))
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["core", "activations", "probes", "analysis", "taxlens"])
def test_no_message_or_caption_speaks_the_dialect(package):
    files = [path for path in sorted((ROOT / package).rglob("*.py")) if path.resolve() == path]
    assert files
    wrong = [
        (path.name, line, said)
        for path in files
        for line, text in strings(path)
        if (said := found(" ".join(text.split())))
    ]
    assert wrong == []


def test_the_words_of_every_option_and_column_are_plain():
    for stage in STAGES:
        for key, field in stage.section.model_fields.items():
            assert not found(field.description or ""), f"{stage.key}.{key}"
        for table in stage.tables:
            assert not [c for c, column in table.columns.items() if found(column.words)], table.name


def test_the_check_finds_a_word_of_the_dialect():
    assert found("the path between them is not fit to walk")
    assert not found("perplexity rises too far along the path")

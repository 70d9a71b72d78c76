"""Every kind of trouble that users' item files made, three members of each at least: kind -> member -> what must hold."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from taxlens.activations.items.items import Item, Suite, read_suite
from taxlens.activations.items.tokens import encode_prompts, encode_suite, prompt_ids
from taxlens.core.errors import ItemError, TaxlensError
from taxlens.suites.formats import gaps, questions


class Files:
    """Reads items from a file."""

    def __init__(self, folder):
        self.folder = folder

    def items(self, rows, *, name="items.jsonl", text=None):
        path = self.folder / name
        path.write_text(text if text is not None else "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return read_suite(path)


PLAIN_TURNS = "{% for m in messages %}user {{ m['content'] }} {% endfor %}"
ROW = {"id": "1", "group": "g", "prompt": "Q:", "choices": [" a", " b"], "gold": 0}
TABLE = "id;group;prompt;choice_0;choice_1;gold\n1;g;Q:; a; b;0\n"


def half_a_character(**fields):
    """A text that no tokenizer takes is refused in one sentence."""

    def holds(_files):
        item = Item("1", "g", **{"prompt": "Hi", "choices": (" A", " B"), "gold": 0} | fields)
        with pytest.raises(ItemError, match="half a character"):
            encode_suite(Suite("s", (item,)), tokenizer("<s>"))

    return holds


def one_gap(mark):
    """A gap of any width is one gap."""

    def holds(_files):
        row = {"sentence": f"The cup fell as the {mark} shook.", "option1": "box", "option2": "cup", "answer": "1"}
        item = gaps([row]).items[0]
        assert (item.contexts[0], item.choices[0]) == ("The cup fell as the box", " shook.")

    return holds


Q = {"question": "W?"}


def tokenizer(bos):
    words = {word: n for n, word in enumerate(["<unk>", bos, "Hi", "Answer", ":", "A", "B", "user", "there"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens([bos])
    inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, unk_token="<unk>")


def one_bos(bos):
    """One BOS, however a text that holds it is asked: as choices, as a prompt, to be answered."""
    made = tokenizer(bos)
    for item in (
        Item("1", "g", prompt=f"{bos}Hi there\nAnswer:", choices=(" A", " B"), gold=0),
        Item("2", "g", prompt=f"{bos}Hi user", choices=(" A", " B"), gold=0, rendered=True),
    ):
        for template in ("plain", "chat") if item.rendered else ("plain",):
            suite = Suite("s", (item,))
            for row in (*encode_suite(suite, made, template=template), *encode_prompts(suite, made, template=template)):
                assert row.ids.count(1) == 1
                assert row.ids[0] == 1
            assert prompt_ids(made, item, template=template).count(1) == 1


def chat_bos(template, count):
    """Chat has the tokenizer's BOS where the template writes none, and no second one, as lm-eval asks."""
    made = tokenizer("<s>")
    made.chat_template = template
    item = Item("1", "g", prompt="Hi there", choices=(" A", " B"), gold=0)
    suite = Suite("s", (item,))
    rows = [*encode_suite(suite, made, template="chat"), *encode_prompts(suite, made, template="chat")]
    assert {row.ids.count(1) for row in rows} == {count}
    assert all(row.ids[0] == 1 for row in rows)
    assert prompt_ids(made, item, template="chat").count(1) == count


def context(name):
    def holds(_logs):
        row = {"question": "W?", "options": ["a", "b"], "answer": "B", name: "Long text."}
        assert questions([row]).items[0].prompt == "Long text.\nQuestion: W?\nAnswer:"

    return holds


def item_file(name, text, count=1):
    def holds(files):
        assert len(files.items((), name=name, text=text)) == count

    return holds


def gold_given(value, place):
    def holds(files):
        assert files.items([ROW | {"gold": value}]).items[0].gold == place

    return holds


def kept_column(**more):
    def holds(files):
        assert dict(files.items([ROW | more]).items[0].labels) == more

    return holds


def numbered(**more):
    def holds(files):
        item = files.items([{**ROW, **more}]).items[0]
        assert all(isinstance(value, str) for value in (item.id, item.group))

    return holds


def told(words, row):
    """A question that cannot be read says why."""

    def holds(_logs):
        with pytest.raises(TaxlensError, match=words):
            questions([row, row, row])

    return holds


def shape(row, right=1):
    def holds(_logs):
        assert questions([row]).items[0].gold == right

    return holds


KINDS = {
    "X half a character": {
        "prompt": half_a_character(prompt="Hi \ud800"),
        "choice": half_a_character(choices=(" A\udc00", " B")),
        "context": half_a_character(prompt=None, contexts=("Hi\ud800", "Hi"), choices=(" A", " A")),
    },
    "6 gaps": {mark: one_gap(mark) for mark in ("_", "__", "_____")},
    "1a a second BOS": {bos: lambda _logs, bos=bos: one_bos(bos) for bos in ("<s>", "<bos>", "<|begin_of_text|>")},
    "1d BOS in chat": {
        "template without": lambda _logs: chat_bos(PLAIN_TURNS, 1),
        "template with": lambda _logs: chat_bos("{{ bos_token }}" + PLAIN_TURNS, 1),
        "template with its text": lambda _logs: chat_bos("<s>" + PLAIN_TURNS, 1),
    },
    "2 a lost context": {name: context(name) for name in ("article", "passage", "context", "support", "story", "background", "fact1")},
    "3i answers from 1": {
        "never 0": told("counted from 0 or from 1", Q | {"options": ["a", "b", "c"], "answer": 1}),
        "the last by number": told("first_answer: 1", Q | {"options": ["a", "b", "c"], "answer": 3}),
        "as texts": told("counted from 0 or from 1", Q | {"options": ["a", "b", "c"], "answer": "2"}),
    },
    "6 files": {
        "array": item_file("a.json", json.dumps([ROW])), "wrapped": item_file("a.json", json.dumps({"data": [ROW]})),
        "semicolons": item_file("a.csv", TABLE), "tabs": item_file("a.csv", TABLE.replace(";", "\t")), "BOM": item_file("a.csv", "\ufeff" + TABLE),
    },
    "6 letters in any dress": {dress: gold_given(dress, 1) for dress in ("B", "b", "(B)", "B.", " b", "1.0", 1.0)},
    "6 numbers as names": {"id": numbered(id=7), "group": numbered(group=3), "both": numbered(id=1.0, group=2)},
    "6 further columns": {"text": kept_column(source_of="web"), "number": kept_column(year=1999), "truth": kept_column(hard=True)},
    "6 shapes of questions": {
        "option_a": shape(Q | {"option_a": "x", "option_b": "y", "answer": "B"}),
        "Option A": shape(Q | {"Option A": "x", "Option B": "y", "answer": "b"}),
        "a list as text": shape(Q | {"choices": '["x", "y"]', "answer": "y"}), "numpy": shape(Q | {"choices": "['x' 'y']", "answer": 1}),
        "text in other case": shape(Q | {"options": ["fire", "Ice"], "answer": "ice"}),
        "a list of one": shape(Q | {"options": ["x", "y"], "answer": [1]}),
    },
    "6 questions that say why": {
        "twice": told("stands twice", Q | {"options": ["x", "x", "y"], "answer": "x"}),
        "none": told("names none", Q | {"options": ["x", "y"], "answer": "z"}),
        "null": told("empty or missing", Q | {"options": ["x", None, "y"], "answer": 0}),
    },
}  # fmt: skip


def test_every_kind_has_three_members():
    assert not {kind: list(members) for kind, members in KINDS.items() if len(members) < 3}


@pytest.mark.parametrize(("kind", "member"), [(kind, member) for kind, members in KINDS.items() for member in members])
def test_a_member_of_a_kind_is_met(kind, member, tmp_path):
    KINDS[kind][member](Files(tmp_path))

"""Instructions of IFEval: known answers of every kind, and agreement with the published code where it is installed."""

from __future__ import annotations

import random
import sys
import types

import numpy as np
import pytest

from taxlens.activations.items.items import Item, Suite, read_suite, write_suite
from taxlens.analysis.answers.answers import Answers
from taxlens.analysis.answers.following.instruction_scores import instructions_followed
from taxlens.analysis.answers.following.instructions import CHECKS, follows, follows_loosely
from taxlens.analysis.answers.following.languages import language_of
from taxlens.analysis.answers.following.text_counts import count_sentences
from taxlens.core.errors import ItemError

KNOWN = {
    "keywords:existence": ({"keywords": ["sea", "wind"]}, "The SEA and the wind.", "The sea alone."),
    "keywords:frequency": ({"keyword": "sea", "frequency": 2, "relation": "at least"}, "sea, SEA", "one sea"),
    "keywords:forbidden_words": ({"forbidden_words": ["sea"]}, "The season is over.", "A sea."),
    "keywords:letter_frequency": ({"letter": "x", "let_frequency": 2, "let_relation": "less than"}, "an axe", "Xerox"),
    "language:response_language": ({"language": "de"}, "Das ist nicht der Weg.", "This is not the way."),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "at least"}, "One. Two!", "Only Dr. No."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    "length_constraints:number_words": ({"num_words": 3, "relation": "less than"}, "two words", "now three words"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"}, "First.\n\nThen, more.", "Then.\n\nFirst.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[name] and [place]", "[name]"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Bye.\nP.S. More.", "Bye. PS more"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "** a\n- b"),
    "detectable_format:constrained_response": ({}, "My answer is no.", "my answer is no"),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 1}, "some *text*", "some text**"),
    "detectable_format:multiple_sections": ({"section_spliter": "Part", "num_sections": 2}, "Part 1 a\nPart 2 b", "Part 1 a"),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "{a: 1}"),
    "detectable_format:title": ({}, "<<A poem>>\nIt is.", "<A poem>"),
    "combination:two_responses": ({}, "one\n******\ntwo", "one\n******\none"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    "startend:end_checker": ({"end_phrase": "The end."}, 'So it was. "the END."', "The end. Or not"),
    "startend:quotation": ({}, '"All of it."', '"Half" of it.'),
    "change_case:capital_word_frequency": ({"capital_frequency": 2, "capital_relation": "at least"}, "NOW or NEVER", "NOW or never"),
    "change_case:english_capital": ({}, "THIS IS THE WAY.", "THIS is the way."),
    "change_case:english_lowercase": ({}, "this is the way.", "This is the way."),
    "punctuation:no_comma": ({}, "No pause.", "Well, a pause."),
}  # fmt: skip


def test_every_kind_has_a_known_answer():
    assert set(KNOWN) == set(CHECKS)
    assert len(CHECKS) == 25


@pytest.mark.parametrize("kind", CHECKS)
def test_a_text_keeps_to_an_instruction_or_does_not(kind):
    arguments, kept, broken = KNOWN[kind]
    instruction = {"id": kind, **arguments}
    assert follows(kept, instruction)
    assert not follows(broken, instruction)
    assert not follows("  ", instruction)


@pytest.mark.parametrize(
    ("text", "kind", "arguments"),
    [
        ("Sure, here:\nno pause", "punctuation:no_comma", {}),
        ("no pause\nDone, so.", "punctuation:no_comma", {}),
        ("So, here:\nno pause\nDone, so.", "punctuation:no_comma", {}),
        ("**Ending**\nthe *end*", "startend:end_checker", {"end_phrase": "the end"}),
    ],
)
def test_a_loose_reading_forgives_an_opening_an_ending_and_stars(text, kind, arguments):
    instruction = {"id": kind, **arguments}
    assert not follows(text, instruction)
    assert follows_loosely(text, instruction)


def test_what_breaks_it_in_the_middle_is_not_forgiven():
    assert not follows_loosely("a\nb, c\nd", {"id": "punctuation:no_comma"})


@pytest.mark.parametrize(
    ("instruction", "told"),
    [
        ({"id": "length_constraints:number_word"}, "number_words"),
        ({"id": "length_constraints:number_words", "num_words": 3}, "relation"),
        ({"id": "length_constraints:number_words", "num_words": 3, "relation": "about"}, "neither"),
        ({"id": "keywords:existence", "keywords": ["("]}, "cannot be checked"),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_refused(instruction, told):
    with pytest.raises(ItemError, match=told):
        follows("some text", instruction)


@pytest.mark.parametrize(
    ("text", "count"),
    [("One", 1), ("One. Two. Three", 3), ("Mr. Fox ran. He hid.", 2), ("It cost 3.50 e.g. here. Yes!", 2), ("", 0), ("Who?! Me...", 2),
     ("1. First\n2. Second", 1)],
)  # fmt: skip
def test_sentences_are_counted_without_abbreviations(text, count):
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "language"),
    [("The way of the wind is not known to us.", "en"), ("El viento no es de la casa que vemos.", "es"), ("Le vent est dans la maison.", "fr"),
     ("Der Wind ist nicht in dem Haus.", "de"), ("O vento não está com uma casa.", "pt"), ("Il vento è nella casa di Anna.", "it"),
     ("Ветер не в доме, и это хорошо.", "ru"), ("Вітер не в хаті, і це добре.", "uk"), ("Вятърът не е в къщата и това е добре.", "bg"),
     ("यह घर में नहीं है।", "hi"), ("हे घर नाही आहे आणि मी येथे आहे", "mr"), ("यो घर हो र यहाँ छ", "ne"), ("الريح في البيت", "ar"),
     ("این خانه است که باد را گرفت", "fa"), ("یہ گھر میں نہیں ہے", "ur"), ("風は家の中にありません。", "ja"), ("바람은 집에 없다.", "ko"),
     ("风不在家里。", "zh-cn"), ("Gió không có trong nhà.", "vi"), ("ลมไม่อยู่ในบ้าน", "th"), ("காற்று வீட்டில் இல்லை", "ta"), ("1, 2, 3", None)],
)  # fmt: skip
def test_a_language_is_told_by_script_words_and_letters(text, language):
    assert language_of(text) == language


def _answers(items, base, aligned):
    zeros = np.zeros(len(items))
    return Answers(Suite("ifeval", tuple(items)), "plain", tuple(base), tuple(aligned), (zeros, zeros), (0.0, 0.0))


def test_four_accuracies_add_up_as_the_benchmark_adds_them():
    comma, words = (
        {"id": "punctuation:no_comma"},
        {"id": "length_constraints:number_words", "num_words": 3, "relation": "at least"},
    )
    items = [
        Item("a", "1", prompt="p", instructions=(comma,)),
        Item("b", "2", prompt="p", instructions=(comma, words, words)),
    ]
    found = instructions_followed(_answers(items, ["fine", "one, two three"], ["<think>a, b</think>fine", "no"]))
    assert found.base["prompt_level_strict"].tolist() == [1, 0]
    assert found.aligned["prompt_level_strict"].tolist() == [1, 0]
    assert found.base["instruction_level_strict"].mean() == pytest.approx(3 / 4, abs=1e-12)
    assert found.aligned["instruction_level_strict"].mean() == pytest.approx(2 / 4, abs=1e-12)
    assert (found.base["instruction_level_loose"].mean() >= found.base["instruction_level_strict"].mean()) is np.True_
    with pytest.raises(ItemError, match="without instructions"):
        instructions_followed(_answers([Item("a", "1", prompt="p")], ["x"], ["y"]))


def test_instructions_are_written_and_read_back(tmp_path):
    item = Item("a", "1", prompt="p", instructions=({"id": "keywords:existence", "keywords": ["sea"]},))
    suite = Suite("s", (item,))
    assert read_suite(write_suite(suite, tmp_path / "s.jsonl")).items == suite.items
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "group": "g", "prompt": "p", "instructions": ["no commas"]}\n')
    with pytest.raises(ItemError, match="instructions must be a list of objects"):
        read_suite(tmp_path / "bad.jsonl")


PIECES = ["sea", "Sea,", "wind", "NOW", "NEVER", "\n", "\n\n", "* point", "- point", "*bold*", "**bold**", "***", "******", "[name]", "P.S. x",
          "<<T>>", "Part 1", "Part 2", '"', "My answer is no.", "xx", "the end", "{}", "```"]  # fmt: skip
SKIPPED = {"language:response_language", "length_constraints:number_sentences", "change_case:capital_word_frequency"}


@pytest.fixture(scope="module")
def published():
    """The published checks, without the packages that only three kinds need."""
    pytest.importorskip("lm_eval", reason="the published checks come with lm-eval")
    nltk = pytest.importorskip("nltk")
    stubs = {"langdetect": types.ModuleType("langdetect"), "immutabledict": types.ModuleType("immutabledict")}
    stubs["langdetect"].detect = lambda text: "en"
    stubs["langdetect"].LangDetectException = ValueError
    stubs["immutabledict"].immutabledict = dict
    kept = {name: sys.modules.get(name) for name in stubs}
    found = nltk.data.find
    sys.modules |= stubs
    nltk.data.find = lambda *args, **kwargs: None
    try:
        from lm_eval.tasks.ifeval import utils

        yield utils
    finally:
        nltk.data.find = found
        for name, module in kept.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})


def test_checks_agree_with_the_published_code_on_random_texts(published):
    rng = random.Random(0)
    compared = 0
    for kind in (kind for kind in CHECKS if kind not in SKIPPED):
        arguments = KNOWN[kind][0]
        for _ in range(60):
            text = " ".join(rng.choices(PIECES, k=rng.randint(1, 9)))
            text = rng.choice([text, text.upper(), text.lower(), f'"{text}"'])
            given = published.InputExample(1, [kind], "p", [dict(arguments)])
            theirs = (
                published.test_instruction_following_strict(given, text).follow_all_instructions,
                published.test_instruction_following_loose(given, text).follow_all_instructions,
            )
            instruction = {"id": kind, **arguments}
            if kind in ("change_case:english_capital", "change_case:english_lowercase") and language_of(text) != "en":
                continue
            assert (follows(text, instruction), follows_loosely(text, instruction)) == theirs, (kind, text)
            compared += 1
    assert compared > 1200

"""Published benchmarks become suites: the fields found, the gold right, what does not fit refused."""

import json

import pytest

import taxlens
from taxlens.core.errors import ConfigError, ItemError, UsageError
from taxlens.suites import formats as shapes

PAIRS = [
    {"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps.", "UID": "agreement", "pairID": "0"},
    {"sentence_good": "The dog runs.", "sentence_bad": "The dog run.", "UID": "agreement", "pairID": "1"},
    {"sentence_good": "Who did she see?", "sentence_bad": "Who did she see him?", "UID": "islands", "pairID": "0"},
]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_minimal_pairs_are_two_whole_sentences_after_nothing():
    suite = shapes.minimal_pairs(PAIRS)
    assert [item.prompt for item in suite.items] == ["", "", ""]
    assert suite.items[1].choices == (" The dog runs.", " The dog run.")
    assert {item.gold for item in suite.items} == {0}
    assert suite.groups.tolist() == ["agreement", "agreement", "islands"]
    assert len({item.id for item in suite.items}) == 3  # pairID repeats across paradigms: row numbers serve


def test_statements_ask_true_or_false_and_carry_the_truth():
    rows = [{"claim": "Ice is cold.", "label": "true"}, {"claim": "Ice is hot.", "label": 0}]
    suite = shapes.true_false(rows, ask="{statement} Right or wrong?", answers=("Right", "Wrong"))
    assert [item.gold for item in suite.items] == [0, 1]
    assert suite.items[0].prompt == "Ice is cold. Right or wrong?"
    assert [item.labels["truth"] for item in shapes.statements(rows).items] == [1, 0]
    assert [item.choices for item in shapes.statements(rows).items] == [(), ()]


QUESTIONS = {
    "index": {"question": "q", "choices": ["x", "y", "z"], "answer": 1},
    "index as text": {"ctx": "q", "endings": ["x", "y", "z"], "label": "1"},
    "letter": {"question": "q", "A": "x", "B": "y", "C": "z", "answer": "B"},
    "text": {"query": "q", "options": ["x", "y", "z"], "gold": "y"},
    "arc": {"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "2"},
    "numbered": {"prompt": "q", "choice_0": "x", "choice_1": "y", "choice_2": "z", "answer": "1"},
    "solutions": {"goal": "q", "sol1": "x", "sol2": "y", "label": 1},
    "choices that are numbers": {"question": "q", "choices": ["7", "12", "9"], "answer": "12"},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_is_found_by_index_letter_label_or_text(name):
    item = shapes.questions([QUESTIONS[name]], ask="{question}:").items[0]
    assert (item.prompt, item.gold) == ("q:", 1)
    assert item.choices[1] in (" y", " 12")


def test_letters_are_listed_in_the_prompt_and_scored_alone():
    item = shapes.questions([QUESTIONS["letter"]], letters=True).items[0]
    assert item.prompt == "Question: q\nA. x\nB. y\nC. z\nAnswer:"
    assert (item.choices, item.gold) == ((" A", " B", " C"), 1)


def test_gaps_have_a_context_a_choice_and_one_continuation():
    row = {"sentence": "The cup fell as the _ shook.", "option1": "cup", "option2": "box", "answer": "2"}
    item = shapes.gaps([row]).items[0]
    assert item.contexts == ("The cup fell as the cup", "The cup fell as the box")
    assert (item.choices, item.gold, item.prompt) == ((" shook.", " shook."), 1, None)


BAD = {
    "a row has no good.": lambda: shapes.minimal_pairs([{"sentence_bad": "x"}]),
    "the truth of a statement is neither true nor false.": lambda: shapes.true_false(
        [{"claim": "x", "label": "maybe"}]
    ),
    "a row has no two choices.": lambda: shapes.questions([{"question": "q", "choices": ["x"], "answer": 0}]),
    "a row has no question.": lambda: shapes.questions([{"choices": ["x", "y"], "answer": 0}]),
    "the answer names none of the choices.": lambda: shapes.questions([QUESTIONS["index"] | {"answer": "w"}]),
    "the answer is an index or a choice's text: both fit.": lambda: shapes.questions(
        [{"question": "q", "choices": ["2", "1", "0"], "answer": "0"}]
    ),
    "a sentence has no gap '_' with words after it.": lambda: shapes.gaps(
        [{"sentence": "No gap.", "option1": "a", "option2": "b", "answer": "1"}]
    ),
}


@pytest.mark.parametrize("title", BAD)
def test_a_row_that_does_not_fit_is_refused_with_its_place(title):
    with pytest.raises(ItemError) as found:
        BAD[title]()
    assert str(found.value).splitlines()[0] == title
    assert "row 1" in str(found.value)


def test_group_by_names_a_field_that_every_row_has():
    assert shapes.minimal_pairs(PAIRS, group_by="pairID").groups.tolist() == ["0", "1", "0"]
    with pytest.raises(UsageError, match=r"not every row has a field 'topic'(.|\n)*UID, pairID"):
        shapes.minimal_pairs(PAIRS, group_by="topic")


def test_a_way_of_asking_without_a_place_is_refused():
    with pytest.raises(UsageError, match=r"no place \{question\}"):
        shapes.questions([QUESTIONS["index"]], ask="Answer:")


def test_a_file_in_a_published_shape_is_a_suite_from_python(tmp_path):
    suite = taxlens.suite(write(tmp_path / "blimp.jsonl", PAIRS), format="minimal_pairs", group_by="UID")
    assert (suite.name, len(suite), len(set(suite.groups))) == ("blimp", 3, 2)
    table = tmp_path / "mmlu.csv"
    table.write_text("question,A,B,answer,subject\nWhat is cold?,fire,ice,B,physics\n", encoding="utf-8")
    found = taxlens.suite(table, format="questions", letters=True)
    assert found.items[0].choices[found.items[0].gold] == " B"


def test_options_that_do_not_go_with_a_format_are_refused(tmp_path):
    file = write(tmp_path / "blimp.jsonl", PAIRS)
    with pytest.raises(ConfigError, match=r"minimal_pairs takes no 'ask'(.|\n)*true_false or questions"):
        taxlens.suite(file, format="minimal_pairs", ask="{question}")
    with pytest.raises(ConfigError, match=r"items are taken as they are written(.|\n)*group_by"):
        taxlens.suite(file, group_by="UID")
    with pytest.raises(ConfigError, match="an embedded suite has a format of its own"):
        taxlens.suite("suite:capitals", format="questions")
    with pytest.raises(ConfigError, match=r"format of a suite(.|\n)*minimal_pairs"):
        taxlens.suite(file, format="minimal_pears")

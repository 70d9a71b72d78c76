"""Questions keep their passage, choices are read in every shape, and what is ambiguous is asked about."""

from __future__ import annotations

import pandas as pd
import pytest

from taxlens.core.errors import ConfigError, ItemError, UsageError
from taxlens.suites.formats import minimal_pairs, questions, read_shape

ROW = {"question": "W?", "options": ["a", "b"], "answer": "B"}


@pytest.mark.parametrize("name", ["article", "context", "passage", "support", "story", "premise", "paragraph"])
def test_a_passage_stands_before_its_question(name):
    assert questions([ROW | {name: "Long text."}]).items[0].prompt == "Long text.\nQuestion: W?\nAnswer:"


def test_any_field_has_a_place_in_the_way_of_asking():
    item = questions([ROW | {"article": "Long.", "topic": "t"}], ask="{topic}: {article} {question} {unknown}").items[0]
    assert item.prompt == "t: Long. W? {unknown}"


def test_a_way_of_asking_that_leaves_the_passage_out_is_refused():
    with pytest.raises(UsageError, match=r"leaves the passage out[\s\S]*article"):
        questions([ROW | {"article": "Long."}], ask="Q: {question}")


def test_fields_of_other_names_are_mapped():
    rows = [{"q": "W?", "o": ["a", "b"], "r": 1, "text_of_it": "Long.", "question": "not this"}]
    fields = {"question": "q", "choices": "o", "answer": "r", "passage": "text_of_it"}
    item = questions(rows, fields=fields).items[0]
    assert (item.prompt, item.choices, item.gold) == ("Long.\nQuestion: W?\nAnswer:", (" a", " b"), 1)
    with pytest.raises(UsageError, match="no field 'zz'"):
        questions(rows, fields={"question": "zz"})
    with pytest.raises(UsageError, match="field of a benchmark"):
        questions(rows, fields={"kwestion": "q"})


@pytest.mark.parametrize(
    "shape",
    [
        {"options": ["a", "b"]}, {"options": '["a", "b"]'}, {"options": "['a', 'b']"}, {"options": "['a' 'b']"}, {"options": "a|b"},
        {"options": "a ) a , b ) b"}, {"options": {"A": "a", "B": "b"}}, {"choices": {"text": ["a", "b"], "label": ["A", "B"]}},
        {"choices": [{"label": "A", "text": "a"}, {"label": "B", "text": "b"}]}, {"option_a": "a", "option_b": "b"},
        {"Option A": "a", "Option B": "b"}, {"opa": "a", "opb": "b"}, {"answerA": "a", "answerB": "b"}, {"A": "a", "B": "b"},
        {"choice_1": "a", "choice_2": "b"}, {"sol1": "a", "sol2": "b"}, {"choices": ["a", "b", None]},
    ],
)  # fmt: skip
def test_choices_are_read_in_every_shape(shape):
    item = questions([{"question": "W?", "answer": "B"} | shape]).items[0]
    assert (item.choices, item.gold) == ((" a", " b"), 1)


def test_a_right_answer_beside_wrong_ones_has_a_place_that_its_text_draws():
    rows = [
        {
            "Question": f"W{n}?",
            "Correct Answer": f"r{n}",
            "Incorrect Answer 1": "x",
            "Incorrect Answer 2": "y",
            "Incorrect Answer 3": "z",
        }
        for n in range(24)
    ]
    items = questions(rows).items
    assert all(item.choices[item.gold] == f" r{n}" for n, item in enumerate(items))
    assert len({item.gold for item in items}) == 4
    assert questions(rows).sha256 == questions(rows[:]).sha256


def test_a_choice_that_is_missing_between_others_is_refused():
    with pytest.raises(ItemError, match="a choice is empty or missing"):
        questions([{"question": "W?", "choices": ["a", None, "b"], "answer": 0}])


def test_answers_that_are_never_0_are_asked_about():
    rows = [{"question": "W?", "choices": ["a", "b", "c", "d"], "answer": n} for n in (2, 1, 3)]
    with pytest.raises(ItemError, match=r"counted from 0 or from 1\?"):
        questions(rows)
    assert [i.gold for i in questions(rows, first_answer=1).items] == [1, 0, 2]
    assert [i.gold for i in questions(rows, first_answer=0).items] == [2, 1, 3]
    rows[0]["answer"] = 0
    assert [i.gold for i in questions(rows).items] == [0, 1, 3]


def test_the_last_choice_by_number_suggests_counting_from_1():
    with pytest.raises(ItemError, match=r"counted from 1\?[\s\S]*first_answer: 1"):
        questions([{"question": "W?", "choices": ["a", "b"], "answer": 2}])


def test_an_answer_text_that_stands_twice_is_named():
    with pytest.raises(ItemError, match="stands twice"):
        questions([{"question": "W?", "choices": ["cat", "cat", "dog"], "answer": "cat"}])


def test_more_choices_than_letters_are_refused():
    row = {"question": "W?", "choices": [f"c{n}" for n in range(27)], "answer": 0}
    assert len(questions([row]).items[0].choices) == 27
    with pytest.raises(ItemError, match="26 letters"):
        questions([row], letters=True)


def test_equal_choices_are_left_out_on_request_and_counted():
    rows = [{"question": f"W{n}?", "choices": ["a", "a" if n == 1 else "b"], "answer": "A"} for n in range(4)]
    suite = questions(rows, skip=["equal_choices"])
    assert (len(suite), suite.left_out) == (3, 1)
    assert len(questions(rows)) == 4
    with pytest.raises(ItemError, match="no row is left"):
        questions(rows[1:2], skip=["equal_choices"])
    with pytest.raises(ConfigError, match="kind of item to skip"):
        questions(rows, skip=["equal"])


def test_further_columns_of_few_values_are_labels():
    rows = [
        {
            "sentence_good": f"a {n}",
            "sentence_bad": f"b {n}",
            "field": "syntax" if n % 2 else "morphology",
            "uid": f"u{n}",
        }
        for n in range(6)
    ]
    assert minimal_pairs(rows).items[1].labels == {"field": "syntax"}


def test_a_data_frame_is_rows():
    frame = pd.DataFrame([ROW, ROW | {"question": "V?", "answer": "A"}])
    assert [i.gold for i in questions(frame).items] == [1, 0]


def test_hellaswag_and_copa_rows_are_asked_as_such():
    row = {"activity_label": "Tea", "ctx": "A man [step] boils", "endings": ["x.", "y."], "label": "1"}
    item = questions([row]).items[0]
    assert (item.prompt, item.gold) == ("Tea: A man boils", 1)
    row = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "label": 0}
    assert questions([row]).items[0].prompt == "It rained therefore"


def test_a_benchmark_is_a_format(tmp_path):
    (tmp_path / "b.csv").write_text(
        "passage,question,label\nIce is water.,is ice water,1\nFire is hot.,is fire cold,0\n"
    )
    suite = read_shape(tmp_path / "b.csv", shape="boolq")
    assert [i.gold for i in suite.items] == [1, 0]
    with pytest.raises(ConfigError, match="takes no 'letters'"):
        read_shape(tmp_path / "b.csv", shape="boolq", letters=True)

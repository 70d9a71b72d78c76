import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxlens.activations.items.item_checks import item_of
from taxlens.activations.items.item_files import json_object
from taxlens.activations.items.items import Item, Suite, read_suite, write_suite
from taxlens.core.errors import ItemError

GOOD = {"id": "a", "prompt": "p", "choices": [" x", " y"], "gold": 1, "group": "g", "labels": {"truth": 1}}


def line(**changes) -> str:
    item = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    return json.dumps(item)


def test_suite_read_back_from_its_file_is_equal(tmp_path):
    items = (
        Item(id="1", group="g", prompt="", choices=(" é", " b"), gold=0),
        Item(id="2", group="g", text="whole text", labels={"truth": True, "who": "Ada", "none": None}),
        Item(id="3", group="h", prompt="only a prompt"),
    )
    suite = Suite(name="s", items=items, kind="benefit")
    back = read_suite(write_suite(suite, tmp_path / "s.jsonl"), kind="benefit")
    assert back.items == items
    assert back.sha256 == suite.sha256
    assert back.groups.tolist() == ["g", "g", "h"]


def test_blank_lines_and_byte_order_mark_are_passed_over(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line().encode() + b"\n\n" + line(id="b").encode() + b"\n")
    assert [item.id for item in read_suite(path).items] == ["a", "b"]
    assert read_suite(path).name == "s"


def test_hash_of_a_suite_ignores_the_files_form_but_not_its_items(tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(line())
    two.write_text(json.dumps(dict(reversed(GOOD.items())), indent=None) + "\n\n")
    assert read_suite(one).sha256 == read_suite(two).sha256
    two.write_text(line(gold=0))
    assert read_suite(one).sha256 != read_suite(two).sha256


BAD = {
    "an item has no id.": line(id=...),
    "id must be a text that is not empty.": line(id=""),
    "an item has no group.": line(group=...),
    "group must be a text that is not empty.": line(group=" "),
    "an item needs two choices or more.": line(choices=[" x"]),
    "choices must be a list of texts.": line(choices=" x"),
    "a choice is empty.": line(choices=[" x", " "]),
    "gold is out of range.": line(gold=2),
    "gold must be the index of a choice.": line(gold=None),
    "gold is given without choices.": line(choices=...),
    "an item has either a prompt or a text.": line(text="t"),
    "a text item has no choices.": line(text="t", prompt=...),
    "an item without choices has an empty prompt.": line(choices=..., gold=..., prompt=" "),
    "labels must be an object.": line(labels=[1]),
    "label 'truth' must be text or a number.": line(labels={"truth": [1]}),
    "label 'truth' is not finite.": '{"id": "a", "text": "t", "group": "g", "labels": {"truth": NaN}}',
    "this label's name is taken.": line(labels={"correct": 1}),
    "not a JSON line.": '{"id": ',
    "an item is not a JSON object.": "[1]",
    "unknown field at here:1: 'golden'.": line(golden=1),
    "prompt holds half a character (a lone surrogate).": line(prompt="\ud800"),
    "id holds a NUL character.": line(id="a\0"),
}


@pytest.mark.parametrize("title", BAD)
def test_bad_item_is_refused_by_name_and_place(title):
    with pytest.raises(ItemError) as found:
        item_of(json_object(BAD[title], where="here:1"), where="here:1")
    assert str(found.value).splitlines()[0] == title
    assert "here:1" in str(found.value)
    assert found.value.exit_code == 2


def test_unknown_field_names_the_nearest():
    with pytest.raises(ItemError, match="Try: 'gold'"):
        item_of(json_object(line(golden=1), where="here:1"), where="here:1")


def test_negative_and_boolean_gold_are_refused():
    for gold in (-1, True):
        with pytest.raises(ItemError):
            item_of(json_object(line(gold=gold), where="here:1"), where="here:1")


def test_duplicated_ids_are_refused_with_both_places(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(line() + "\n" + line(id="b") + "\n" + line())
    with pytest.raises(ItemError, match=r"two items have one id(.|\n)*'a'(.|\n)*0 and 2"):
        read_suite(path)


def test_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(line().encode() + b"\xff")
    with pytest.raises(ItemError, match="not UTF-8"):
        read_suite(path)


def test_missing_and_empty_suites_are_refused(tmp_path):
    with pytest.raises(ItemError, match="suite file not found"):
        read_suite(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ItemError, match="a suite has no items"):
        read_suite(tmp_path / "empty.jsonl")
    with pytest.raises(ItemError, match="must be one of"):
        Suite(name="s", items=(Item(id="1", group="g", text="t"),), kind="benefits")


def test_subset_keeps_order_and_name():
    suite = Suite(name="s", items=tuple(Item(id=str(n), group="g", text="t") for n in range(5)))
    assert [item.id for item in suite.subset([3, 1]).items] == ["3", "1"]
    assert len(suite.subset([0])) == 1


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(TEXT)
def test_any_text_survives_a_round_trip(text):
    item = Item(id="1", group="g", text=text)
    assert item_of(item.to_json(), where="x") == item

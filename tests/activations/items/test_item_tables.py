"""Items in CSV and TSV: the same items as in JSON lines, or a refusal that names the row."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxlens.activations.items.items import Item, read_suite
from taxlens.core.errors import ItemError

HEADER = "id,group,prompt,choice_0,choice_1,choice_2,gold,label.topic,label.level"
ROW = 'a,g,"The capital of France, is", Paris, Rome,,0,cities,2'


@pytest.fixture
def table(tmp_path):
    def write(*lines, name="s.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_numbered_columns_become_choices_with_their_spaces(table):
    item = read_suite(table(HEADER, ROW)).items[0]
    assert item == Item(
        id="a",
        group="g",
        prompt="The capital of France, is",
        choices=(" Paris", " Rome"),
        gold=0,
        labels={"topic": "cities", "level": 2},
    )


def test_a_json_column_of_choices_gives_the_same_item_as_numbered_columns(table):
    plain = read_suite(table(HEADER, ROW)).items[0]
    lines = (
        "id,group,prompt,choices,gold,labels",
        'a,g,"The capital of France, is","["" Paris"", "" Rome""]",0,"{""topic"": ""cities"", ""level"": 2}"',
    )
    assert read_suite(table(*lines, name="t.csv")).items[0] == plain


def test_tab_separated_values_read_alike(table):
    tabs = [line.replace(",", "\t").replace("France\t", "France,") for line in (HEADER, ROW)]
    assert read_suite(table(*tabs, name="s.tsv")).items == read_suite(table(HEADER, ROW)).items


def test_texts_contexts_and_empty_prompts_are_read(table):
    lines = (
        "id,group,prompt,text,context_0,context_1,choice_0,choice_1,gold",
        "p,g,,,,, good one, bad one,0",
        "t,g,,A whole text.,,,,,",
        "c,g,,,The cup,The box, fell., fell.,1",
    )
    pair, text, gap = read_suite(table(*lines)).items
    assert (pair.prompt, pair.choices) == ("", (" good one", " bad one"))
    assert (text.text, text.choices) == ("A whole text.", ())
    assert (gap.contexts, gap.prompt, gap.context(1)) == (("The cup", "The box"), None, "The box")


def test_a_quoted_cell_may_hold_line_breaks_and_empty_rows_are_passed_over(table):
    lines = ("id,group,prompt,choice_0,choice_1,gold", 'a,g,"one', 'two", x, y,0', "", "b,g,three, x, y,1")
    assert [item.prompt for item in read_suite(table(*lines)).items] == ["one\ntwo", "three"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1), min_size=2, max_size=4))
def test_any_texts_survive_the_table(tmp_path_factory, texts):
    choices = [f" {n}{text}" for n, text in enumerate(texts)]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["id", "group", "prompt", *(f"choice_{n}" for n in range(len(choices))), "gold"])
    writer.writerow(["a", "g", "p", *choices, 0])
    path = tmp_path_factory.mktemp("any") / "s.csv"
    path.write_bytes(file.getvalue().encode())
    assert list(read_suite(path).items[0].choices) == choices


BAD = {
    "a row has not one cell a column.": (HEADER, "a,g,p, x, y"),
    "two columns have one name.": ("id,group,id", "a,g,b"),
    "the choices of a row leave a gap.": ("id,group,prompt,choice_0,choice_2,gold", "a,g,p, x, y,0"),
    "the cell of choices is no JSON.": ("id,group,prompt,choices,gold", "a,g,p, x; y,0"),
    "gold must be the index of a choice.": ("id,group,prompt,choice_0,choice_1,gold", "a,g,p, x, y,first"),
    "gold is out of range.": ("id,group,prompt,choice_0,choice_1,gold", "a,g,p, x, y,2"),
    "an item has no group.": ("id,prompt,choice_0,choice_1,gold", "a,p, x, y,0"),
    "an item has one context a choice.": ("id,group,context_0,choice_0,choice_1,gold", "a,g,The cup, x, y,0"),
    "the table cannot be read.": ("id,group,prompt", 'a,g,"p'),
}


@pytest.mark.parametrize("title", BAD)
def test_a_bad_table_is_refused_by_name_and_row(title, table):
    with pytest.raises(ItemError) as found:
        read_suite(table(*BAD[title]))
    assert str(found.value).splitlines()[0] == title
    assert "s.csv:" in str(found.value)


def test_an_unknown_column_names_the_nearest(table):
    with pytest.raises(ItemError, match=r"unknown field at (.|\n)*'golden'(.|\n)*'gold'"):
        read_suite(table("id,group,prompt,golden", "a,g,p,0"))


def test_an_empty_table_is_refused_with_a_header_to_write(table):
    with pytest.raises(ItemError, match=r"no header(.|\n)*id,group,prompt,choice_0"):
        read_suite(table(""))

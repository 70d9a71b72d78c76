"""A table is what it declares: columns, types, keys and header, on the way out and on the way in."""

import numpy as np
import pandas as pd
import pytest

from taxlens.core.artifacts import write_table
from taxlens.core.errors import CheckError
from taxlens.core.table import Table, count, flag, number, text

TABLE = Table(
    "lost",
    "an item",
    {
        "suite": text("name"),
        "item": text("id"),
        "layer": count("block", blank="overall"),
        "n": count("items"),
        "tax": number("loss"),
        "closed": flag("whether it closed", blank="not judged"),
        "note": text("what to know", blank="nothing", optional=True),
    },
    key=("suite", "item", "layer"),
)
ROWS = [("facts", "a", 0, 3, 0.5, True), ("facts", "a", None, 4, np.nan, None), ("facts", "007", 1, 5, 1e-9, False)]


def there_and_back(frame, tmp_path):
    return TABLE.read(write_table(TABLE.check(frame), tmp_path / "lost.csv"))


def test_types_come_back_as_they_were_declared(tmp_path):
    back = there_and_back(TABLE.frame(ROWS), tmp_path)
    kinds = {name: str(dtype) for name, dtype in back.dtypes.items()}
    assert kinds == {
        "suite": "str", "item": "str", "layer": "Int64", "n": "int64", "tax": "float64", "closed": "boolean",
    }  # fmt: skip
    assert list(back["item"]) == ["a", "a", "007"]
    assert back["layer"].isna().tolist() == [False, True, False]
    assert back["closed"].tolist()[0] is True


def test_texts_that_look_like_numbers_or_nothing_stay_texts(tmp_path):
    frame = TABLE.frame([(word, word, 0, 1, 0.0, True) for word in ("1", "nan", "NA", "1e5", "True")])
    assert list(there_and_back(frame, tmp_path)["suite"]) == ["1", "nan", "NA", "1e5", "True"]


def test_a_table_without_rows_has_its_header(tmp_path):
    for frame in (pd.DataFrame(), TABLE.frame([]), TABLE.join([])):
        back = there_and_back(frame, tmp_path)
        assert list(back.columns) == list(TABLE.required)
        assert len(back) == 0


def test_columns_are_written_in_the_declared_order():
    frame = TABLE.frame(ROWS)[["closed", "tax", "n", "layer", "item", "suite"]]
    assert list(TABLE.check(frame).columns) == list(TABLE.required)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="tax"), "lacks columns"),
        (lambda f: f.assign(extra=1), "not declared"),
        (lambda f: f.assign(n=[1.0, 2.5, 3.0]), "another type"),
        (lambda f: f.assign(n=[1, None, 3]), "empty cells"),
        (lambda f: f.assign(suite=[1, 2, 3]), "another type"),
        (lambda f: f.assign(tax=["a", 1.0, 2.0]), "another type"),
        (lambda f: f.assign(closed=[2, 0, 1]), "another type"),
        (lambda f: f.assign(item=["a", "", "c"]), "empty cells"),
        (lambda f: f.assign(item="a", layer=0), "same fact twice"),
    ],
)
def test_a_frame_that_is_not_the_table_is_refused(change, message):
    with pytest.raises(CheckError, match=message):
        TABLE.check(change(TABLE.frame(ROWS)))


@pytest.mark.parametrize("text", ["\n", "", "suite,item\na,b\n", "suite,item,layer,n,tax,closed\na,b,0,x,0.1,True\n"])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "lost.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckError, match="table 'lost'"):
        TABLE.read(path)


def test_columns_of_a_later_version_are_read_too(tmp_path):
    path = write_table(TABLE.frame(ROWS).assign(more=1.5), tmp_path / "lost.csv")
    assert list(TABLE.read(path)["more"]) == [1.5] * 3


def test_a_key_must_name_columns():
    with pytest.raises(ValueError, match="names no column"):
        Table("x", "a row", {"a": text("a")}, key=("b",))

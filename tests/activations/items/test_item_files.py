"""Items from every format in which users have them, and refusals that name the format."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from taxlens.activations.items import item_files
from taxlens.activations.items.gold import choice_named
from taxlens.activations.items.item_files import file_rows, records
from taxlens.activations.items.items import Item, read_suite, write_suite
from taxlens.core.errors import ItemError

ROWS = [
    {"id": f"q{n}", "group": "g", "prompt": f"{n} + 1 =", "choices": [f" {n + 1}", " 0"], "gold": 0} for n in range(3)
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(folder, kind):
    """The same three rows in one of the formats."""
    path = folder / f"s.{kind}"
    if kind == "jsonl":
        path.write_text(lines(ROWS))
    elif kind == "json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif kind == "data.json":
        path.write_text(json.dumps({"version": 1, "data": ROWS}))
    elif kind == "columns.json":
        path.write_text(json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines(ROWS).encode()))
    elif kind == "csv":
        path.write_text(
            "id;group;prompt;choice_0;choice_1;gold\n"
            + "".join(f"{r['id']};g;{r['prompt']};{r['choices'][0]}; 0;0\n" for r in ROWS)
        )
    elif kind == "csv.gz":
        text = "id,group,prompt,choice_0,choice_1,gold\n" + "".join(
            f"{r['id']},g,{r['prompt']},{r['choices'][0]}, 0,0\n" for r in ROWS
        )
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        pd.DataFrame(ROWS).to_parquet(path)
    else:
        pytest.importorskip("datasets").Dataset.from_list(ROWS).save_to_disk(str(path))
    return path


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "data.json", "columns.json", "jsonl.gz", "csv", "csv.gz", "parquet", "folder"]
)
def test_every_format_gives_the_same_items(tmp_path, kind):
    plain = tmp_path / "plain"
    plain.mkdir()
    assert read_suite(written(tmp_path, kind)).sha256 == read_suite(written(plain, "jsonl")).sha256


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("s.xlsx", b"PK", "is a spreadsheet"),
        ("s.jsonl", b"PAR1....", "suite file is parquet, not text"),
        ("s.jsonl", b"PK\x03\x04", "a spreadsheet or an archive"),
        ("s.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "compressed suite file is damaged"),
        ("s.parquet", b"PAR1 not", "parquet file cannot be read"),
        ("s.json", b'[{"id": 1},', "JSON array cannot be read"),
        ("s.json", b"[1, 2]", "an item is not a JSON object"),
        ("s.jsonl", b"\xff\xfe", "not UTF-8"),
        ("s.jsonl", b"[" * 9999, "nested deeper than 64"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path, name, content, title):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ItemError, match=title):
        read_suite(tmp_path / name)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(item_files, "MOST_BYTES", 2**20)
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(b" " * 2**22, mtime=0))
    with pytest.raises(ItemError, match="unpacks to too much"):
        list(file_rows(tmp_path / "s.jsonl.gz"))


def test_a_folder_that_is_no_dataset_and_one_of_several_splits_are_named(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(ItemError, match="no saved dataset"):
        list(file_rows(tmp_path / "x"))
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(ItemError, match=r"several splits[\s\S]*d/test"):
        list(file_rows(tmp_path / "d"))
    assert len(read_suite(tmp_path / "d" / "test")) == 3


def test_frames_and_datasets_are_rows():
    frame = pd.DataFrame([{"question": "a", "label": 1.0}, {"question": "b", "label": None}])
    assert records(frame) == [{"question": "a", "label": 1.0}, {"question": "b", "label": None}]
    datasets = pytest.importorskip("datasets")
    assert [row["id"] for row in records(datasets.Dataset.from_list(ROWS))] == ["q0", "q1", "q2"]
    with pytest.raises(ItemError, match="several splits"):
        records({"test": ROWS})
    with pytest.raises(ItemError, match="no mapping of fields"):
        records(["a"])


def test_numbers_letters_and_further_columns_are_taken_in_items(tmp_path):
    rows = [
        {"id": 7, "group": 3, "prompt": "p", "choices": [" a", " b"], "gold": "B", "level": 2, "index": 9},
        {"group": "g", "prompt": "p", "choices": [" a", " b"], "gold": 1.0, "Unnamed: 0": 4},
        {"group": "g", "prompt": "p", "choices": [" yes", " no"], "gold": " no"},
    ]
    (tmp_path / "s.jsonl").write_text(lines(rows))
    one, two, three = read_suite(tmp_path / "s.jsonl").items
    assert (one.id, one.group, one.gold, one.labels) == ("7", "3", 1, {"level": 2})
    assert (two.id, two.gold, two.labels) == ("1", 1, {})
    assert three.gold == 1


def test_a_field_that_looks_like_a_slip_is_still_refused(tmp_path):
    (tmp_path / "s.jsonl").write_text(lines([ROWS[0] | {"chioces": []}]))
    with pytest.raises(ItemError, match="Try: 'choices'"):
        read_suite(tmp_path / "s.jsonl")


def test_conversations_right_answers_and_further_fields_survive_the_file(tmp_path):
    items = (
        Item(
            "a",
            "g",
            messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}),
            answers=("Hello",),
            match="exact",
        ),
        Item(
            "b",
            "g",
            prompt="<s>Q:",
            choices=(" a", " b", " c"),
            gold=2,
            also_right=(0,),
            rendered=True,
            special_tokens=False,
        ),
    )
    from taxlens.activations.items.items import Suite

    path = write_suite(Suite("s", items), tmp_path / "s.jsonl")
    assert read_suite(path).items == items
    assert items[0].prompt == "Be brief.\n\nHi"
    assert items[1].right == (2, 0)


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"gold": [0, 1]}, "every choice is right"),
        ({"gold": [0, 5]}, "gold is out of range"),
        ({"gold": [0, 0]}, "several right choices"),
        ({"messages": [{"role": "king", "content": "x"}]}, "a message has a role and a text"),
        ({"messages": "x"}, "messages must be a list"),
        ({"rendered": 1}, "rendered must be true or false"),
        ({"answers": []}, "answers must be a list"),
    ],
)
def test_bad_further_fields_are_refused(tmp_path, change, title):
    (tmp_path / "s.jsonl").write_text(lines([ROWS[0] | change]))
    with pytest.raises(ItemError, match=title):
        read_suite(tmp_path / "s.jsonl")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (1, 1), (1.0, 1), ("1", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("**B**", 1), ("Answer: B", 1), ("the correct answer is (b)", 1),
        ("Ice", 1), ("ICE", 1), ([1], 1), (["B"], 1), ("water", None), ([0, 1], None), (5, None), ("Z", None),
    ],
)  # fmt: skip
def test_an_answer_is_understood_in_any_dress(value, place):
    assert choice_named(value, ["fire", "ice"]) == place


def test_true_and_false_name_one_of_two():
    assert choice_named(True, ["no", "yes"]) == 1
    assert choice_named(True, ["a", "b", "c"]) is None
    assert choice_named("1", ["a", "b"], first=1) == 0

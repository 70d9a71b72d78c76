"""JSON of strangers: a key that stands twice is refused by its name, and nothing else is said of it."""

import pytest

from taxlens.core.json_text import JsonError, parse_json


@pytest.mark.parametrize("text", ['{"gold": 1, "gold": 0}', '{"a": {"b": 1, "b": 1}}', '[{"x": 1}, {"y": 2, "y": 3}]'])
def test_a_key_that_stands_twice_is_refused_at_any_depth(text):
    with pytest.raises(JsonError, match="stands twice"):
        parse_json(text)


def test_the_same_key_in_two_objects_is_no_repetition():
    assert parse_json('[{"x": 1}, {"x": 2}]') == [{"x": 1}, {"x": 2}]

"""Configs: defaults stated, wrong keys answered by line, YAML without its traps."""

import json

import pytest

from taxlens.config.schema import apply_overrides, build_config, config_schema, load_config
from taxlens.config.yaml_file import parse_yaml, read_yaml
from taxlens.core.errors import ConfigError

GOOD = """name: small
pair: {base: a, aligned: b}
suites:
  - {name: facts, file: facts.jsonl}
"""


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_small_config_gets_every_default(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    assert config.templates == ("plain", "chat")
    assert config.attribution.tolerance == 0.01
    assert config.planned == ("tax", "capture", "probe", "similarity", "attribute", "figures", "report")


def test_stages_are_done_in_their_order_whatever_the_config_says(tmp_path):
    config = load_config(write(tmp_path, GOOD + "stages: [report, tax]\n"))
    assert config.planned == ("tax", "report")


def test_an_unknown_key_is_answered_with_file_line_and_nearest(tmp_path):
    path = write(tmp_path, GOOD + "attribution:\n  toleranse: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    text = str(caught.value)
    assert "unknown config key 'attribution.toleranse'" in text
    assert f"{path}, line 6" in text
    assert "Try: tolerance" in text


def test_a_wrong_type_is_answered_with_line_got_and_expected(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, GOOD + "seed: many\n"))
    text = str(caught.value)
    assert "line 5" in text
    assert "'many'" in text
    assert "a whole number" in text


def test_a_missing_key_says_that_it_has_no_default(tmp_path):
    with pytest.raises(ConfigError, match="it has no default"):
        load_config(write(tmp_path, "name: a\nsuites: [{name: f, file: f.jsonl}]\n"))


def test_two_suites_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="suite names must be unique; repeated: facts"):
        load_config(write(tmp_path, GOOD + "  - {name: facts, file: other.jsonl}\n"))


def test_a_missing_config_lists_those_beside_it(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(tmp_path / "d.yaml")


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


def test_broken_yaml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_config(write(tmp_path, "name: [unclosed\n"))


def test_yaml_reads_numbers_and_words_as_people_do():
    values = parse_yaml("rate: 1e-3\nname: no\non: off\ncode: 08\nyes: true\nday: 2026-01-01\nsmall: .5")
    assert values == {
        "rate": 0.001,
        "name": "no",
        "on": "off",
        "code": "08",
        "yes": True,
        "day": "2026-01-01",
        "small": 0.5,
    }


def test_a_repeated_key_is_refused_with_both_lines():
    with pytest.raises(ConfigError, match="1 and 3"):
        parse_yaml("a: 1\nb: 2\na: 3\n")


def test_yaml_makes_no_objects():
    with pytest.raises(ConfigError, match="not readable YAML"):
        parse_yaml("a: !!python/object/apply:os.getcwd []")


def test_set_goes_through_the_same_model(tmp_path):
    path = write(tmp_path, GOOD)
    config = load_config(path, overrides=["tax.bootstrap=500", "templates=[plain]", "attribution.tolerance=1e-3"])
    assert (config.tax.bootstrap, config.templates, config.attribution.tolerance) == (500, ("plain",), 0.001)
    with pytest.raises(ConfigError, match=r"unknown config key 'tax\.boot'"):
        load_config(path, overrides=["tax.boot=5"])
    with pytest.raises(ConfigError, match="key=value"):
        load_config(path, overrides=["tax.bootstrap"])


def test_overrides_leave_what_was_given_alone():
    given = {"tax": {"bootstrap": 2000}}
    apply_overrides(given, ["tax.bootstrap=5"])
    assert given == {"tax": {"bootstrap": 2000}}


def test_a_list_is_no_config():
    with pytest.raises(ConfigError, match="a config is a mapping"):
        build_config([1])  # type: ignore[arg-type]


def test_the_schema_is_json_and_names_every_section():
    schema = json.loads(json.dumps(config_schema()))
    assert {"pair", "suites", "attribution", "frontier"} <= set(schema["properties"])


@pytest.mark.parametrize(
    "override, expected",
    [
        ("tax.bootstrap=ten", "a whole number"),
        ("tax.bootstrap=-1", "at least"),
        ("seed=1.5", "a whole number"),
        ("figures.venue=cosmo", "one of"),
        ("templates=plain", "a list"),
        ("suites=[]", "at least 1"),
        ("frontier.shares=[2]", "at most 1"),
        ("tax=3", "a mapping"),
        ("pair.base=3", "a text"),
    ],
)
def test_a_value_of_the_command_line_is_refused_in_plain_words_where_it_was_given(tmp_path, override, expected):
    path = tmp_path / "c.yaml"
    path.write_text("name: a\npair: {base: a, aligned: b}\nsuites: [{name: f, file: f}]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_config(path, overrides=[override])
    said = str(refused.value)
    assert f"--set {override}" in said
    assert expected in said
    assert "Input should be" not in said


def test_a_folder_that_is_not_there_is_not_called_a_config(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no run folder and no config file[\s\S]*real"):
        read_yaml(tmp_path / "nothere")

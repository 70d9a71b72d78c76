"""Whatever a config names is looked up before anything is loaded: by --dry-run, and by a run before it makes its folder."""

import typing

import pytest
import yaml

from taxlens.config.schema import ConfigHead, SplitSection, SuiteSection
from taxlens.core.errors import ConfigError
from taxlens.runs.planning import plan
from taxlens.runs.running import run
from taxlens.stages import STAGES

CONFIG = """name: small
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: demo:facts}
  - {name: harm, file: demo:harm}
templates: [plain]
"""
WRONG = [
    ("similarity: {measures: [ckaa]}", "unknown measure 'ckaa'", "Try: cka", 7),
    ("similarity: {map: [cka, cca2]}", "unknown measure 'cca2'", "cca", 7),
    ("tax: {metrics: [accurracy]}", "accurracy", "accuracy", 7),
    ("tax: {generate: [fact]}", "unknown suite in tax.generate 'fact'", "Try: facts", 7),
    ("tax: {samples: 1}", "two samples or more", "0 leaves it out", 7),
    ("probes: {labels: [corect]}", "unknown label 'corect'", "Try: correct", 7),
    ("capture: {positions: lst}", "unknown token position 'lst'", "Try: last", 7),
    ("capture: {positions: 'span:nothing'}", "unknown label of a span 'nothing'", "relation", 7),
    ("capture: {layers: [0, 99]}", "a layer is out of range", "0 to 3", 7),
    ("attribution: {methods: [path, grafted]}", "grafted", "graft", 7),
    ("attribution: {metrics: [nil]}", "nil", "nll", 7),
    ("attribution: {stitch: [5]}", "a layer is out of range", "0 to 4", 7),
    ("diagnose: {layers: [4]}", "a layer is out of range", "0 to 3", 7),
    ("diagnose: {sites: [mlp_out]}", "resid_post", "leave sites out", 7),
    ("frontier: {benefit: harms}", "unknown suite in frontier.benefit 'harms'", "Try: harm", 7),
    ("frontier: {against: harmles}", "unknown suite in frontier.against 'harmles'", "Try: harm", 7),
    ("frontier: {suites: [harm]}", "unknown capability suite in frontier.suites 'harm'", "facts", 7),
    ("frontier: {orders: [path, checkpoint]}", "needs earlier checkpoints", "leave it out", 7),
    ("frontier: {orders: [pth]}", "pth", "path", 7),
    ("frontier: {draw_shares: [0.3]}", "unknown share in frontier.draw_shares '0.3'", "0.01", 7),
    ("frontier: {generate_plans: [path-7%]}", "unknown plan in frontier.generate_plans 'path-7%'", "path-1%", 7),
    ("stages: [tax, probing]", "probing", "probe", 7),
    ("stages: [probe]", "stage probe needs what was not done", "taxlens capture first", None),
]  # fmt: skip


@pytest.fixture
def unloaded(monkeypatch):
    """Loading a model is a failure."""

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("taxlens.inputs.checkpoints.load_chain", load)


@pytest.mark.parametrize(("line", "said", "fix", "number"), WRONG, ids=[line for line, *_ in WRONG])
def test_a_wrong_name_is_refused_before_anything_is_loaded(tmp_path, unloaded, line, said, fix, number):
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG + line + "\n", encoding="utf-8")
    for work in (lambda: plan(config), lambda: run(config, out=tmp_path / "out")):
        with pytest.raises(ConfigError) as caught:
            work()
        text = str(caught.value)
        assert said in text
        assert fix in text
        assert number is None or f"line {number}" in text
    assert not (tmp_path / "out").exists()


def test_a_right_config_passes_every_check(tmp_path, unloaded):
    config = tmp_path / "c.yaml"
    right = (
        "tax: {generate: [facts], samples: 2}\ncapture: {positions: answer, layers: [0, 3]}\n"
        "probes: {labels: [correct, relation]}\nsimilarity: {measures: [drift, cka], map: [procrustes]}\n"
        "diagnose: {layers: [0]}\nattribution: {stitch: [0, 4]}\n"
        "frontier: {benefit: harm, shares: [0.01, 0.05], draw_shares: [0.05], generate_plans: [path-5%, random-5%-d00]}\n"
    )
    config.write_text(CONFIG + right, encoding="utf-8")
    with pytest.raises(AssertionError, match="a model was loaded"):
        plan(config)


def test_a_stage_that_was_done_before_serves_a_later_one(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    out = tmp_path / "out"
    run(config, out=out, stages=["capture"], overrides=["capture.layers=[3]"])
    assert "stages" in plan(out, stages=["probe"])
    with pytest.raises(ConfigError, match="unknown label 'corect'"):
        run(out, stages=["probe"], overrides=["probes.labels=[corect]"])


def lists_of_names():
    """(section, key) of every option whose value is a list of texts; (suite, key) of those of a suite."""
    found = []
    for stage in STAGES:
        found += [
            (stage.key, name) for name, field in stage.section.model_fields.items() if _holds_texts(field.annotation)
        ]
    found += [("", name) for name, field in ConfigHead.model_fields.items() if _holds_texts(field.annotation)]
    found += [("split", name) for name, field in SplitSection.model_fields.items() if _holds_texts(field.annotation)]
    return found + [("suites", name) for name, f in SuiteSection.model_fields.items() if _holds_texts(f.annotation)]


def _holds_texts(kind):
    if typing.get_origin(kind) is tuple:
        return any(one is str or typing.get_origin(one) in (typing.Literal, typing.Annotated) for one in _parts(kind))
    return any(_holds_texts(part) for part in typing.get_args(kind))


def _parts(kind):
    """What a tuple holds; numbers with bounds are no names."""
    held = [one for one in typing.get_args(kind) if one is not Ellipsis]
    return [
        one for one in held if not (typing.get_origin(one) is typing.Annotated and typing.get_args(one)[0] is not str)
    ]


def test_lists_of_names_are_found():
    found = lists_of_names()
    assert len(found) >= 20
    assert {
        ("tax", "metrics"),
        ("edit", "editors"),
        ("", "templates"),
        ("split", "disjoint"),
        ("suites", "skip"),
    } <= set(found)
    assert ("capture", "layers") not in found


@pytest.mark.parametrize(("section", "key"), lists_of_names())
def test_an_unknown_name_in_any_list_is_refused_by_a_dry_run_before_anything_is_loaded(
    tmp_path, unloaded, section, key
):
    values = yaml.safe_load(CONFIG) | {"edit": {"harm": "harm", "harmless": "facts"}}
    (tmp_path / "held").mkdir()
    values["features"] = {"dictionaries": [{"path": "held"}]}
    values["frontier"] = {"benefit": "harm"}
    wrong = {key: ["no-such-name"]}
    if section == "suites":
        values["suites"][0] |= wrong
    elif section:
        values[section] = (values.get(section) or {}) | wrong
    else:
        values |= wrong
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="no-such-name"):
        plan(config)

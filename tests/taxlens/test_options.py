"""Every option of every section arrives where it is used, and a notebook's defaults are the config's."""

import importlib
import inspect

import pytest

from taxlens.activations.capture.request import CaptureOptions
from taxlens.analysis.answers.taxes import measure_other_taxes
from taxlens.analysis.features.account_run import account_dictionaries
from taxlens.analysis.features.feature_report import report_features
from taxlens.analysis.frontier.options import Options
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.readings.logit_lens import logit_lens
from taxlens.analysis.state.diagnose import diagnose
from taxlens.analysis.state.diagnoses import diagnose_suites
from taxlens.analysis.tax.tax import measure_tax
from taxlens.config.schema import ConfigHead, build_config, stored_values
from taxlens.core.errors import ConfigError, UsageError
from taxlens.face.pair import Pair
from taxlens.stages import STAGES
from taxlens.stages.attribute.attribution_section import AttributionSection
from taxlens.stages.capture.capture_section import CaptureSection
from taxlens.stages.diagnose.diagnose_section import DiagnoseSection
from taxlens.stages.features.features_section import FeaturesSection
from taxlens.stages.frontier.frontier_section import FrontierSection
from taxlens.stages.lens.lens_section import LensSection
from taxlens.stages.probe.probe_section import ProbeSection
from taxlens.stages.probe.store_probes import probe_store
from taxlens.stages.section import arguments, asked
from taxlens.stages.similarity.similarity_section import SimilaritySection
from taxlens.stages.similarity.store_similarity import similarity_store
from taxlens.stages.tax.tax_section import TaxSection

ENGINES = [
    (TaxSection, measure_tax), (TaxSection, measure_other_taxes), (CaptureSection, CaptureOptions), (ProbeSection, probe_store),
    (SimilaritySection, similarity_store), (AttributionSection, attribute), (DiagnoseSection, diagnose),
    (DiagnoseSection, diagnose_suites), (FrontierSection, Options), (LensSection, logit_lens),
    (FeaturesSection, report_features), (FeaturesSection, account_dictionaries),
]  # fmt: skip
VALUES = {"name": "n", "pair": {"base": "b", "aligned": "a"}, "suites": [{"name": "s", "file": "f"}]}
OTHERWISE = {
    ("templates", CaptureOptions),
    ("max_gradients", Options),
    ("metrics", measure_tax),
    ("samples", measure_other_taxes),
    ("unaligned", report_features),
}
"""Defaults that another section has, or that an engine keeps for itself: all metrics where none is named."""


@pytest.mark.parametrize(("section", "engine"), ENGINES, ids=lambda one: one.__name__)
def test_an_engines_defaults_are_those_of_the_config(section, engine):
    takes, default = inspect.signature(engine).parameters, section()
    shared = [name for name in section.model_fields if name in takes and (name, engine) not in OTHERWISE]
    assert shared
    for name in shared:
        here, there = takes[name].default, getattr(default, name)
        if here is not inspect.Parameter.empty:
            assert (list(here), list(there)) == (list(there),) * 2 if isinstance(there, tuple) else here == there, name


def test_every_option_of_every_section_is_described():
    for stage in STAGES:
        for name, field in stage.section.model_fields.items():
            assert field.description, f"{stage.name}: {name}"


def test_the_options_that_an_engine_takes_are_handed_over_by_name():
    section = TaxSection(metrics=("nll",), bootstrap=123)
    assert arguments(section, measure_tax)["metrics"] == ("nll",)
    assert "generate" not in arguments(section, measure_tax)


def test_what_a_notebook_asks_is_filled_and_checked_as_a_config_is():
    found = asked(TaxSection, {"bootstrap": 200, "seed": 3}, measure_tax)
    assert (found["bootstrap"], found["seed"], found["metrics"]) == (200, 3, TaxSection().metrics)
    with pytest.raises(UsageError, match=r"bootstrap\n(.|\n)*greater than or equal to 100"):
        asked(TaxSection, {"bootstrap": 1}, measure_tax)
    with pytest.raises(UsageError, match="Try: 'bootstrap'"):
        asked(TaxSection, {"bootstrp": 200}, measure_tax)
    with pytest.raises(UsageError, match="unknown option 'generate'"):
        asked(TaxSection, {"generate": ("facts",)}, measure_tax)


def test_a_notebook_asks_in_the_templates_that_a_config_asks_in():
    for method in (Pair.tax, Pair.capture):
        assert inspect.signature(method).parameters["templates"].default == ConfigHead.model_fields["templates"].default


@pytest.mark.parametrize(
    ("method", "engine", "key", "given"),
    [
        ("frontier", "analysis.frontier.measure:frontier", "frontier", {"benefit": "harm", "against": "harmless"}),
        ("logit_lens", "analysis.readings.logit_lens:logit_lens", "lens", {}),
        ("attribute", "analysis.path.attribute:attribute", "attribution", {}),
        ("diagnose", "analysis.state.diagnoses:diagnose_suites", "diagnose", {}),
        ("features", "analysis.features.feature_report:report_features", "features", {"dictionaries": {}}),
    ],
)
def test_a_notebooks_method_hands_on_the_configs_defaults_and_refuses_what_a_config_refuses(
    monkeypatch, method, engine, key, given
):
    calls = {}
    module, _, name = engine.partition(":")
    real = inspect.signature(getattr(importlib.import_module(f"taxlens.{module}"), name))

    def seen(*_, **options):
        calls.update(options)

    seen.__signature__ = real
    monkeypatch.setattr(f"taxlens.{module}.{name}", seen)
    section = next(stage.section for stage in STAGES if stage.key == key)
    pair = Pair.__new__(Pair)
    pair.models, pair.steps, pair._progress = None, (), None
    getattr(pair, method)([], **given)
    arrived = [field for field in section.model_fields if field in calls and field not in given]
    assert arrived
    for field in arrived:
        assert calls[field] == getattr(section(), field), field
    with pytest.raises(UsageError, match="unknown option 'itms'"):
        getattr(pair, method)([], itms=3, **given)
    with pytest.raises(UsageError, match="items"):
        getattr(pair, method)([], items=-3, **given)


FORMER = [(stage.key, name) for stage in STAGES for name in stage.section.engine_chooses]


def test_a_key_whose_value_the_engine_chooses_is_refused_with_that_sentence():
    assert len(FORMER) == 12
    for section, key in FORMER:
        with pytest.raises(
            ConfigError, match=f"'{section}.{key}' is no option any more: the engine chooses it"
        ) as error:
            build_config(VALUES | {section: {key: 3}})
        assert "take it out" in str(error.value)
    with pytest.raises(ConfigError, match="unknown config key 'similarity.map_row'"):
        build_config(VALUES | {"similarity": {"map_row": 3}})


def test_a_run_that_was_made_with_such_a_key_is_read_without_it():
    old = VALUES | {"similarity": {"map_rows": 99, "test_layers": 0}, "probes": {"heads": False}}
    config = build_config(stored_values(old))
    assert config.similarity.test_layers == 0
    assert stored_values(old)["probes"] == {}

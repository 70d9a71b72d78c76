"""Every option of every section arrives where it is used, and a notebook's defaults are the config's."""

import inspect

import pytest

from taxlens.activations.capture.capture import capture
from taxlens.analysis.answers.taxes import measure_other_taxes
from taxlens.analysis.frontier.options import Options
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.state.diagnose import diagnose
from taxlens.analysis.state.diagnoses import diagnose_suites
from taxlens.analysis.tax.tax import measure_tax
from taxlens.core.errors import UsageError
from taxlens.stages import STAGES
from taxlens.stages.attribute.attribution_section import AttributionSection
from taxlens.stages.capture.capture_section import CaptureSection
from taxlens.stages.diagnose.diagnose_section import DiagnoseSection
from taxlens.stages.frontier.frontier_section import FrontierSection
from taxlens.stages.probe.probe_section import ProbeSection
from taxlens.stages.probe.store_probes import probe_store
from taxlens.stages.section import arguments, asked
from taxlens.stages.similarity.similarity_section import SimilaritySection
from taxlens.stages.similarity.store_similarity import similarity_store
from taxlens.stages.tax.tax_section import TaxSection

ENGINES = [
    (TaxSection, measure_tax), (TaxSection, measure_other_taxes), (CaptureSection, capture), (ProbeSection, probe_store),
    (SimilaritySection, similarity_store), (AttributionSection, attribute), (DiagnoseSection, diagnose),
    (DiagnoseSection, diagnose_suites), (FrontierSection, Options),
]  # fmt: skip
OTHERWISE = {
    ("templates", capture),
    ("max_gradients", Options),
    ("metrics", measure_tax),
    ("samples", measure_other_taxes),
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
    found = asked(TaxSection, measure_tax, {"bootstrap": 200, "seed": 3})
    assert (found["bootstrap"], found["seed"], found["metrics"]) == (200, 3, TaxSection().metrics)
    with pytest.raises(UsageError, match=r"bootstrap\n(.|\n)*greater than or equal to 100"):
        asked(TaxSection, measure_tax, {"bootstrap": 1})
    with pytest.raises(UsageError, match="Try: 'bootstrap'"):
        asked(TaxSection, measure_tax, {"bootstrp": 200})
    with pytest.raises(UsageError, match="unknown option 'generate'"):
        asked(TaxSection, measure_tax, {"generate": ("facts",)})

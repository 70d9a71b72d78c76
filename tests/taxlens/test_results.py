"""Every result of the package shows itself: a line, a table, HTML, and a figure that is registered."""

import importlib
import pkgutil

import pytest

import taxlens
from taxlens.core.result import _FIGURES, Result
from taxlens.stages.figure_registry import KINDS

TEXTS = {"answers"}  # a result that is texts has no figure


def results():
    for module in pkgutil.walk_packages(taxlens.__path__, "taxlens."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = [], [Result]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("taxlens.") and kind not in found:
                found.append(kind)
    return found


@pytest.fixture(scope="module")
def kinds():
    assert taxlens.suite  # registers the figures
    return results()


def test_there_are_results_of_every_stage(kinds):
    names = {kind.__name__ for kind in kinds}
    assert {
        "Tax",
        "Attribution",
        "UnitEffects",
        "Frontier",
        "Diagnosis",
        "StitchProfile",
        "Comparison",
        "Curve",
    } <= names


def test_every_result_has_a_line_a_table_and_html(kinds):
    for kind in kinds:
        assert kind.__repr__ is not object.__repr__, kind
        assert kind.to_frame is not Result.to_frame, kind
        assert kind._repr_html_, kind
        assert kind.__doc__, kind


def test_every_results_figure_is_registered(kinds):
    for kind in kinds:
        if kind.figure not in TEXTS:
            assert kind.figure in KINDS, kind
            assert kind.figure in _FIGURES, kind


def test_every_registered_figure_is_a_kind():
    assert set(_FIGURES) <= set(KINDS)

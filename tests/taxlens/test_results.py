"""Every result of the package shows itself: a line, a table, HTML, and a figure that is registered."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import taxlens
from taxlens.core.result import Result
from taxlens.stages import FIGURES

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
        if kind.figure and kind.figure not in TEXTS:
            assert kind.figure in FIGURES, kind


def test_a_result_draws_itself_whatever_was_imported_before_it():
    code = (
        "import pandas as pd\n"
        "from taxlens.analysis.answers.costs import Costs\n"
        "row = dict(suite='a', kind='capability', template='plain', measure='tokens', base=1.0, aligned=2.0, change=1.0,"
        " low=.5, high=1.5, n_items=4, n_groups=2,"
        " base_low=.9, base_high=1.1, aligned_low=1.9, aligned_high=2.1)\n"
        "print(Costs(pd.DataFrame([row])).plot().caption)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Tokens of both models" in done.stdout

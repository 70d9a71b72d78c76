"""Results show themselves as a line, a table, HTML and a figure."""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import pytest

from taxlens.core import result
from taxlens.core.errors import UsageError
from taxlens.core.result import Result, register_figure


@dataclass(frozen=True, slots=True, repr=False)
class Shown(Result):
    figure: ClassVar[str] = "shown-in-test"
    rows: int

    def to_frame(self):
        return pd.DataFrame({"name": ["<b>"] * self.rows, "value": [0.123456] * self.rows})

    def __repr__(self):
        return "Shown(<1>)"


def test_html_escapes_names_and_says_what_is_left_out():
    html = Shown(25)._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "Shown(&lt;1&gt;)" in html
    assert "5 more rows" in html


def test_plot_finds_its_figure_through_the_registry(monkeypatch):
    monkeypatch.setattr(result, "_FIGURES", dict(result._FIGURES))
    with pytest.raises(UsageError, match="cannot draw itself"):
        Shown(1).plot()
    register_figure("shown-in-test", lambda frame, scale=1: len(frame) * scale)
    assert Shown(3).plot(scale=2) == 6

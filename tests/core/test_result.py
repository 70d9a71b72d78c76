"""Results show themselves as a line, a table, HTML and a figure."""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import pytest

from taxlens.core import lazy
from taxlens.core.errors import UsageError
from taxlens.core.result import Result


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


def test_plot_is_drawn_by_what_the_front_named(monkeypatch):
    monkeypatch.setitem(lazy._DRAW, "draw", lambda kind, frame, name, width: (kind, len(frame), name, width))
    assert Shown(3).plot("shown_nll", width=3.03) == ("shown-in-test", 3, "shown_nll", 3.03)
    with pytest.raises(TypeError):
        Shown(3).plot(scale=2)


def test_a_result_without_a_figure_says_so():
    with pytest.raises(UsageError, match="has no figure"):
        type("Bare", (Shown,), {"figure": ""})(1).plot()

"""What every result can do: show itself in a line, as a table, as HTML, as a figure."""

from __future__ import annotations

import html
from typing import Any, ClassVar

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.core.lazy import drawer


class Result:
    """Base of results: subclasses give `figure`, `__repr__` and `to_frame`."""

    __slots__ = ()
    figure: ClassVar[str] = ""

    def to_frame(self) -> pd.DataFrame:
        """Return the result as a tidy table, one row a fact."""
        raise TypeError(f"{type(self).__name__} has no table.")

    def shown_frame(self) -> pd.DataFrame:
        """Return the table that a notebook shows; the whole one is `to_frame`."""
        return self.to_frame()

    def companions(self) -> dict[str, pd.DataFrame]:
        """Return further tables that the figure shows, by name (the closure beside the effects)."""
        return {}

    def plot(self, name: str | None = None, *, width: float = 5.5) -> Any:
        """Draw the result's figure and return it with the plotted numbers and a caption.

        Args:
            name: which drawing, where the result has several (one a metric, suite or level, such as "tax_nll"); the first,
                in the metric that a run is told in, if left out. A name that is not there is answered with those that are.
            width: inches, such as 3.03 for a column of ACL and 5.5 for a page of NeurIPS.

        Raises:
            UsageError: this result has no figure, or none of that name.
        """
        if not self.figure:
            rows = [("has", ".to_frame()")]
            raise UsageError(explain(f"{type(self).__name__} has no figure.", rows))
        more = {"companions": found} if (found := self.companions()) else {}
        return drawer()(self.figure, self.to_frame(), name=name, width=width, **more)

    def _repr_html_(self) -> str:
        frame = self.shown_frame()
        shown = frame.head(20).to_html(index=False, border=0, float_format=lambda v: f"{v:.4g}", escape=True)
        more = f"<p>{len(frame) - 20} more rows: .to_frame()</p>" if len(frame) > 20 else ""
        return f"<p><code>{html.escape(repr(self))}</code></p>{shown}{more}"

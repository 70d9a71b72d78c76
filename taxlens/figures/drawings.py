"""What a kind of figure is asked for: the drawings that a run's tables give, and the metric that stands for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from taxlens.analysis.scoring import metrics
from taxlens.figures.style import Drawn

Tables = Mapping[str, pd.DataFrame]
Jobs = Iterator[tuple[str, Callable[[], Drawn]]]


def main_metric(frame: pd.DataFrame) -> str:
    """Return the metric that figures of one metric show (see `scoring.metrics.main_metric`)."""
    return metrics.main_metric(frame["metric"])


def filled_in(frame: pd.DataFrame, **values: str | None) -> pd.DataFrame:
    """Return a table with columns that a result of plain arrays does not know, such as the suite."""
    return frame.assign(**{name: value for name, value in values.items() if name not in frame})

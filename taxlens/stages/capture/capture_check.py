"""What the options of a capture must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.capture.capture_section import CaptureSection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_capture(context: CheckContext, section: CaptureSection) -> None:
    """Refuse token positions that are not known, labels of spans that no item has, and layers that are not there.

    Raises:
        ConfigError: naming the key and what it must be.
    """
    from taxlens.activations.capture.row_plan import POSITIONS

    context.layers("capture.layers", section.layers)
    if section.positions.startswith("span:"):
        labels = {name for suite in context.suites.values() for item in suite.items for name in item.labels}
        name = section.positions.removeprefix("span:")
        context.each_of("capture.positions", [name], sorted(labels), what="label of a span")
    else:
        context.each_of("capture.positions", [section.positions], POSITIONS, what="token position")

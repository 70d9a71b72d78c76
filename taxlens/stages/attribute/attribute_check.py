"""What the options of attribution must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.attribute.attribution_section import AttributionSection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_attribute(context: CheckContext, section: AttributionSection) -> None:
    """Refuse cuts of the restoration profile that are not there.

    Raises:
        ConfigError: naming the key and the range.
    """
    context.layers("attribution.stitch", section.stitch, extra=1)

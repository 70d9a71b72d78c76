"""What the options of a diagnosis must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.diagnose.diagnose_section import DiagnoseSection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_diagnose(context: CheckContext, section: DiagnoseSection) -> None:
    """Refuse layers that are not there.

    Raises:
        ConfigError: naming the key and the range.
    """
    context.layers("diagnose.layers", section.layers)

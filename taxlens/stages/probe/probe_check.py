"""What the options of probes must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.probe.probe_section import ProbeSection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_probe(context: CheckContext, section: ProbeSection) -> None:
    """Refuse labels that no item carries.

    Raises:
        ConfigError: naming the key and the labels that there are.
    """
    if isinstance(section.labels, str):
        return
    items = [item for suite in context.suites.values() for item in suite.items]
    known = ["correct"] if any(item.choices for item in items) else []
    known += sorted({name for item in items for name in item.labels})
    context.each_of("probes.labels", section.labels, known, what="label")

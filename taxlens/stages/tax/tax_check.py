"""What the options of the tax must meet before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.tax.tax_section import TaxSection

if TYPE_CHECKING:
    from taxlens.runs.checking import CheckContext


def check_tax(context: CheckContext, section: TaxSection) -> None:
    """Refuse suites that are not there or hold no prompts, and a single sample.

    Raises:
        ConfigError: naming the key and what it must be.
    """
    context.each_of("tax.generate", section.generate, context.suite_names(), what="suite in tax.generate")
    for place, name in enumerate(section.generate):
        if not any(item.prompt is not None and not item.contexts for item in context.suites[name].items):
            context.refuse("tax.generate", f"suite {name!r} has no prompts to answer.", [("got", name)], place=place)
    for place, suite in enumerate(context.config.suites):
        if (suite.generate or suite.answers) and not any(
            item.prompt is not None and not item.contexts for item in context.suites[suite.name].items
        ):
            rows = [("suite", suite.name)]
            key = "generate" if suite.generate else "answers"
            context.refuse(
                f"suites.{place}.{key}", f"suite {suite.name!r} has no prompts to answer.", rows, f"{key}: false"
            )
    if section.samples == 1:
        context.refuse("tax.samples", "versatility needs two samples or more.", [("got", 1)], "0 leaves it out")

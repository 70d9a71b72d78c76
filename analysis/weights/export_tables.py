"""The tables that say where units live: their weights under the names of Hugging Face and TransformerLens."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, number, text

_NAME = {
    "parameter": text("name of the weight in Hugging Face's model"),
    "rows": text("rows of the weight", blank="all"),
    "columns": text("columns of the weight", blank="all"),
    "triple": count("rank of the singular triple", blank="the whole change"),
    "transformer_lens": text("name of the weight in TransformerLens", blank="it has none"),
    "hook": text("TransformerLens hook on the module's output", blank="it has none"),
}

ATTRIBUTION_NAMES = Table(
    "attribution_names", "a weight that a unit consists of", {"level": of.LEVEL, "component": of.COMPONENT} | _NAME
)
PLAN_NAMES = Table(
    "plan_names",
    "a weight that the recommended plan undoes",
    {"unit": of.COMPONENT, "coefficient": number("share of the unit's change that is undone, 0..1")} | _NAME,
)

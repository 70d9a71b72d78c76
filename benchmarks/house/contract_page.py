"""The contract's pages from the declared stages: `python -m benchmarks.house.contract_page` writes docs/config.md, docs/tables.md, docs/contract.md.

config.md and tables.md are written whole; in contract.md the lines between the two marks of a block are replaced.
"""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from taxlens.config.schema import Config, ExecutorSection, PairSection, SplitSection, SuiteSection
from taxlens.core.table import Column, Table
from taxlens.stages import STAGES
from taxlens.stages.section import RegisteredName
from taxlens.stages.stage import Stage

DOCS = Path(__file__).parents[2] / "docs"
TYPES = {str: "text", float: "number", int: "whole number", bool: "yes or no"}
MARK = "<!-- {name}: python -m benchmarks.house.contract_page -->"
HEAD = "(Made from the declared stages by `python -m benchmarks.house.contract_page`; change it there.)"


def config_page() -> str:
    """Return docs/config.md: every key of the config with its default and its meaning."""
    parts = [
        "# Config",
        f"Every key of a config. {HEAD} What a config looks like: [contract](contract.md).",
        "## The run",
    ]
    kinds = {"pair": PairSection, "suites": SuiteSection, "split": SplitSection, "executor": ExecutorSection}
    of_stages = {stage.key for stage in STAGES if stage.key}
    own = {name: field for name, field in Config.model_fields.items() if name not in of_stages}
    parts.append(_keys(own))
    for key, kind in kinds.items():
        parts += [f"## `{key}`", kind.__doc__ or "", _keys(kind.model_fields)]
    for stage in (stage for stage in STAGES if stage.key):
        when = "" if stage.always else f" `taxlens run` does this stage only where the config has `{stage.key}`."
        parts += [
            f"## `{stage.key}`",
            f"`taxlens {stage.name}`. {stage.section.__doc__}{when}",
            _keys(stage.section.model_fields),
        ]
    return "\n\n".join(parts) + "\n"


def _keys(fields: typing.Mapping[str, FieldInfo]) -> str:
    rows = [f"| `{name}` | {_default(field)} | {_cell(_meaning(name, field))} |" for name, field in fields.items()]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _meaning(name: str, field: FieldInfo) -> str:
    kinds = [field.annotation, *field.metadata]  # of a plain Annotated the checks stand beside the type
    options = [value for kind in kinds for value in _literals(kind) if isinstance(value, str)]
    said = field.description or f"see below: `{name}`"
    return said if not options or len(options) > 14 else f"{said} ({', '.join(dict.fromkeys(options))})"


def _literals(kind: Any) -> list[Any]:
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    if isinstance(check := getattr(kind, "func", None), RegisteredName):
        return list(check.known)
    return [value for part in typing.get_args(kind) for value in _literals(part)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: it must be given"
    value = field.default
    if isinstance(value, BaseModel):
        return "see below"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{_yaml(value) if isinstance(value, tuple) else text}`"


def _yaml(values: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, values))}]"


def tables_page() -> str:
    """Return docs/tables.md: every table with its columns, types, units and meaning."""
    parts = [
        "# Tables",
        f"Every table of a run, `tables/NAME.csv`. {HEAD} A table is checked when it is written: columns, types, and that no "
        "two rows have the same key. Accuracy and probability are 0..1, nll, margin and kl nats; tax and effects are "
        "positive where something was lost. A number that is undefined is blank.",
    ]
    for stage in (stage for stage in STAGES if stage.tables):
        parts.append(f"## {stage.name}")
        parts += [_table(table) for table in stage.tables]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    key = f" Key: {', '.join(table.key)}." if table.key else ""
    rows = [f"| {name} | {TYPES[column.type]} | {_cell(_words(column))} |" for name, column in table.columns.items()]
    head = ["| column | type | meaning |", "|---|---|---|"]
    more = " A further registered metric of the scores adds a column of its name." if table.further else ""
    return "\n".join([f"### {table.name}.csv", "", f"One row: {table.row}.{key}{more}", "", *head, *rows])


def _words(column: Column) -> str:
    return column.words


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def blocks() -> dict[str, str]:
    """Return the blocks of docs/contract.md by name."""
    rows = [f"| `taxlens {stage.name}` | {stage.help} | {_key(stage)} | {_listed(stage)} |" for stage in STAGES]
    return {"stages": "\n".join(["| command | does | config | tables |", "|---|---|---|---|", *rows])}


def _key(stage: Stage) -> str:
    return f"[`{stage.key}`](config.md#{stage.key})" if stage.key else ""


def _listed(stage: Stage) -> str:
    return ", ".join(f"[{table.name}](tables.md#{table.name}csv)" for table in stage.tables)


def contract_page(page: str) -> str:
    """Return docs/contract.md with its blocks made anew.

    Raises:
        ValueError: the page lacks the marks of a block.
    """
    for name, text in blocks().items():
        first, last = MARK.format(name=name), f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(first) + r"\n.*?" + re.escape(last), re.S)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"docs/contract.md has no block {name!r}: {first}")
        page = pattern.sub(lambda _, t=f"{first}\n{text}\n{last}": t, page)
    return page


def pages() -> dict[str, str]:
    """Return the text of every page by its name in docs/."""
    contract = (DOCS / "contract.md").read_text(encoding="utf-8")
    return {"config.md": config_page(), "tables.md": tables_page(), "contract.md": contract_page(contract)}


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        print(f"docs/{name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()

"""From rows to a suite: ids, groups, further labels, and the rows that are left out on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from taxlens.activations.items.gold import has_equal_choices
from taxlens.activations.items.item_files import records
from taxlens.activations.items.items import Item, Suite
from taxlens.core.errors import ConfigError, ItemError, explain, one_of
from taxlens.suites.fields import further_labels, grouped, renamed

Rows = Iterable[Mapping[str, Any]]

SKIPS = ("equal_choices",)
"""What `skip` may leave out here; a config's ``too_long`` is decided with the models (`activations.models.prompts.fitting`)."""


def build_suite(
    rows: Rows,
    fill: Callable[[Mapping[str, Any], str], dict[str, Any]],
    *,
    name: str,
    group_by: str | None,
    kind: str,
    source: str,
    fields: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
) -> Suite:
    """The suite of some rows.

    Args:
        rows: mappings, a DataFrame, or a ``datasets`` object.
        fill: (row, where) -> the fields of its item beside id and group.
        name: of the suite.
        group_by: field that groups the items; None: the first usual one whose values repeat.
        kind: "capability" or "benefit".
        source: where the rows come from, for errors.
        fields: usual field name -> the name that the rows have.
        skip: which items are left out and counted, of `SKIPS`.

    Raises:
        ItemError: no row is left, or one cannot be used.
        UsageError: not every row has a field that is named.
    """
    for what in skip:
        one_of(what, SKIPS, what="kind of item to skip", error=ConfigError)
    given: Sequence[Mapping[str, Any]] = records(rows)
    if fields:
        given = renamed(given, fields, source or name)
    ids, groups = grouped(given, group_by, source or name)
    items, left = [], 0
    for number, (row, item_id, group, labels) in enumerate(zip(given, ids, groups, further_labels(given)), start=1):
        filled = fill(row, f"{source or name}, row {number}")
        if "equal_choices" in skip and has_equal_choices(filled.get("choices"), filled.get("contexts")):
            left += 1
            continue
        item = Item(id=item_id, group=group, **filled)
        items.append(replace(item, labels={**labels, **item.labels}) if labels else item)
    if not items:
        found = [("suite", source or name), ("rows", len(given)), ("left out", left)]
        raise ItemError(explain("no row is left as an item.", found, "give a file with rows, or leave skip out."))
    return Suite(name, tuple(items), kind=kind, source=source, left_out=left)

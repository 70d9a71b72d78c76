"""What a run says of its editors."""

from __future__ import annotations

from typing import Any

from taxlens.words.run_view import RunView


def edit_closing(run: RunView) -> list[str]:
    """Return the sentence that names the editor to take."""
    facts = _facts(run)
    return [facts["reason"]] if facts.get("reason") else []


def edit_limits(run: RunView) -> list[str]:
    """Return which editors were left out, and which are not told apart from the recommended one."""
    facts = _facts(run)
    found = [f"editor {name} was left out: {reason}." for name, reason in facts.get("skipped", {}).items()]
    if facts.get("ties"):
        found.append(f"on these items {facts['recommended']} is not told apart from {', '.join(facts['ties'])}.")
    return found


def edit_terminal(run: RunView) -> list[Any]:
    """Return a table of the editors for the terminal."""
    if not run.has("editors"):
        return []
    from rich.table import Table

    table = Table(title="editors, held-out items")
    for name in ("editor", "setting", "tax returned", "harm alone kept", "KL to base", "processor s"):
        table.add_column(name)
    for row in run.table("editors").sort_values("returned", ascending=False).itertuples():
        returned = f"{100 * row.returned:.0f} % [{100 * row.returned_low:.0f}, {100 * row.returned_high:.0f}]"
        harm = f"{100 * row.harm_kept:.0f} % [{100 * row.harm_kept_low:.0f}, {100 * row.harm_kept_high:.0f}]"
        setting = row.setting if isinstance(row.setting, str) else ""
        table.add_row(row.editor, setting, returned, harm, f"{row.kl_base:.3f}", f"{row.seconds:.1f}")
    return [table]


def _facts(run: RunView) -> dict[str, Any]:
    return dict(run.manifest.get("editors") or {}) if run.has("editors") else {}

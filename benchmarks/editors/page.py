"""Results of the comparison as JSON and CSV, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxlens.analysis.answers.refusal_rates import JudgeError
from taxlens.analysis.editors.choice import Constraints, recommend
from taxlens.analysis.editors.compare import EditorComparison
from taxlens.analysis.editors.gated import gated_frame
from taxlens.core.artifacts import write_json, write_table

DOCS = Path("docs")
HEADINGS = (
    "editor", "setting", "returned", "by answers", "harm kept", "by answers", "harmless", "KL base", "KL aligned", "healed",
    "preserved", "free numbers", "processor s",
)  # fmt: skip
KEEP = Constraints(keep={"harm": 0.95})


def write_results(found: EditorComparison, name: str, out: Path, *, error: JudgeError | None = None) -> None:
    """Tables of one pair, its skipped editors, ties of its best one, and what is recommended at 95 % of harm alone."""
    out.mkdir(parents=True, exist_ok=True)
    if any(row.editor.family == "activations" for row in found.rows):
        write_table(gated_frame(found, error=error), out / f"{name}-gated.csv")
    write_table(found.to_frame(), out / f"{name}.csv")
    write_table(found.fronts_frame(), out / f"{name}-fronts.csv")
    best = recommend(found, KEEP)
    facts = {
        "pair": name, "fingerprint": found.fingerprint, "tries": found.tries, "keep": found.keep,
        "skipped": dict(found.skipped), "recommended": best.name, "why": best.reason,
        "ties": found.ties(best.name) if best.name else [], "taxed": list(found.held.task.taxed),
        "items": {s: len(found.held.task.held[s]) for s in found.held.task.suites},
        "ends": _ends(found),
    }  # fmt: skip
    write_json(facts, out / f"{name}.json")


def _ends(found: EditorComparison) -> dict[str, Any]:
    """Refusal rates by generation of both ends, by suite, and their divergence."""
    held = found.held
    rates = {
        end: {suite: float(refused.mean()) for suite, refused in values.answered.items()}
        for end, values in (("base", held.base), ("aligned", held.aligned))
    }
    return {"refused": rates, "aligned_kl_base": float(held.aligned.distances["kl_base"].mean())}


def write_page(out: Path) -> None:
    """docs/editors-table.md and its figure, from the results that are there."""
    names = sorted(path.stem for path in out.glob("*.json"))
    lines = [
        "# Every editor on the same items", "",
        "Written by `python -m benchmarks.editors`. A row is the setting that validation items chose, measured once on "
        "held-out items; intervals are 95 % group bootstraps. `returned`: share of the taxes in probability, and of the "
        "refusals by whole answers. `harm`: refusals of harmful prompts alone, log-odds and whole answers, share of "
        "aligned's. `harmless`: whole answers that do not refuse, share of aligned's. KL is nats a token on harmless answers.",
    ]  # fmt: skip
    for name in names:
        lines += _section(out, name)
    (DOCS / "editors-table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if names:
        _fronts(out, names)


def _section(out: Path, name: str) -> list[str]:
    facts = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    frame = pd.read_csv(out / f"{name}.csv").sort_values("returned", ascending=False, kind="stable")
    rates = facts["ends"]["refused"]["aligned"]
    told = ", ".join(f"{suite} {100 * rate:.0f} %" for suite, rate in rates.items())
    lines = [
        "", f"## {name}", "",
        f"Taxed: {', '.join(facts['taxed'])}. Held-out items: {', '.join(f'{s} {n}' for s, n in facts['items'].items())}. "
        f"Aligned refuses {told or 'not asked'}; its KL from the base is {facts['ends']['aligned_kl_base']:.2f}. "
        f"At most {facts['tries']} settings an editor.", "",
        "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS),
    ]  # fmt: skip
    for r in frame.itertuples():
        cells = [
            r.editor, str(r.setting if isinstance(r.setting, str) else ""), _share(r, "returned"),
            _share(r, "returned_generated"), _share(r, "harm_kept"), _share(r, "harm_generated"),
            _share(r, "harmless_generated", ends=False), _plain(r.kl_base), _plain(r.kl_aligned),
            _share(r, "healed", ends=False), _share(r, "preserved", ends=False), f"{r.free_numbers:,}", f"{r.seconds:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", facts["why"]]
    if facts["ties"]:
        lines.append(f"Not told apart from it (the interval of the difference holds 0): {', '.join(facts['ties'])}.")
    lines += [f"Left out: {editor}, {reason}." for editor, reason in facts["skipped"].items()]
    return lines + _gates(out, name)


def _gates(out: Path, name: str) -> list[str]:
    """Editors behind a gate that reads the prompt, beside one that knows: a table of its own, for no checkpoint does this."""
    path = out / f"{name}-gated.csv"
    frame = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    if frame.empty:
        return []
    fitted = frame[frame.gate == "fitted"]
    lines = [
        "", f"Gated, prompt by prompt the edited or the aligned model. The fitted gate reads layer {fitted.layer.iloc[0]:.0f} "
        f"and tells harmful validation prompts from others with a balanced accuracy of {fitted.accuracy.iloc[0]:.2f}; it lets "
        f"{100 * fitted.harm_through.iloc[0]:.0f} % of the held-out harmful prompts through.", "",
        "| editor | gate | returned | by answers | harm kept | by answers |", "|" + "---|" * 6,
    ]  # fmt: skip
    for r in frame.itertuples():
        shares = [_share(r, key) for key in ("returned", "returned_generated", "harm_kept", "harm_generated")]
        lines.append("| " + " | ".join([str(r.editor), "knows" if r.gate == "oracle" else "fitted", *shares]) + " |")
    return lines


def _share(row: Any, name: str, *, ends: bool = True) -> str:
    value, low, high = (getattr(row, key) for key in (name, f"{name}_low", f"{name}_high"))
    if not np.isfinite(value):
        return ""
    return f"{100 * value:.0f}" + (
        f" [{100 * low:.0f}, {100 * high:.0f}]" if ends and np.isfinite([low, high]).all() else ""
    )


def _plain(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else ""


def _fronts(out: Path, names: list[str]) -> None:
    """Every tried setting on the validation items: harm kept against what is returned."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(names), figsize=(3.3 * len(names), 3.2), squeeze=False)
    for panel, name in zip(axes[0], names, strict=True):
        frame = pd.read_csv(out / f"{name}-fronts.csv")
        for editor, part in frame.groupby("editor"):
            shown = editor in ("joint", "repair", "path", "one_gradient", "interpolation", "false_refusal")
            part = part.sort_values("harm_kept")
            panel.plot(
                part.harm_kept, part.returned, marker="o", markersize=3, linewidth=1 if shown else 0,
                alpha=1 if shown else 0.3, label=editor if shown else None, color=None if shown else "grey",
            )  # fmt: skip
        panel.axvline(0.95, color="black", linewidth=0.5, linestyle=":")
        panel.set(title=name, xlabel="harm alone kept (log-odds)", xlim=(0, 1.3), ylim=(-0.5, 1.3))
    axes[0][0].set_ylabel("tax returned (validation)")
    axes[0][0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(DOCS / "figures" / "editors-fronts.png", dpi=110)
    plt.close(figure)

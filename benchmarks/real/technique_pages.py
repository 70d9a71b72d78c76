"""Write docs/techniques.md and a page for each technique from the JSON files in `benchmarks/real/results`; nothing is measured.

python -m benchmarks.real.technique_pages
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.real.bill import ASKED, RESULTS
from benchmarks.real.fetch import ROOT
from benchmarks.real.suites import TEXT

DOCS = ROOT / "docs"
ORDER = ("refusal", "refusal-full", "preference", "policy", "constitutional", "adversarial", "chain")
SAID = {
    "refusal": "refusal training",
    "refusal-full": "refusal training, all weights",
    "preference": "preference training",
    "policy": "policy gradient",
    "constitutional": "constitutional training",
    "adversarial": "adversarial training",
    "chain": "refusal, then preference training",
}
MEASURES = {
    "refusal_rate": ("refusals", 100.0, "points"), "entropy": ("entropy of the first token", -1.0, "nats"),
    "distinct_2": ("different word pairs", -100.0, "points"), "tokens": ("tokens of an answer", 1.0, "tokens"),
}  # fmt: skip
"""Measure of the bill -> (what a page calls it, factor from cost to change, unit)."""

RECORDED = (
    "loss", "pairs", "chosen_moved_nats", "accepted", "revisions", "supervised_loss", "preference_loss",
    "compliance_nats_under_attack", "note",
)  # fmt: skip
"""What a page repeats of what training wrote down."""

KINDS = {"harm": "harmful", "harmless": "harmless", "overrefusal": "look-alike"}
"""Suites that are answered, as a page calls their prompts."""

Known = dict[str, Any]


def results() -> dict[str, Known]:
    """What is kept, by label, in the techniques' order: the setting that is shipped first."""
    kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    place = {name: (ORDER.index(one["technique"]), one["strong"], one["seed"]) for name, one in kept.items()}
    return {name: kept[name] for name in sorted(kept, key=place.__getitem__)}


def told(row: Known, factor: float = 1.0, digits: int = 3) -> str:
    """A value with its interval; bold where that is clear of 0 and, if it has one, Holm's p is below .05."""
    low, high = sorted((factor * row["low"], factor * row["high"]))
    value = factor * row.get("tax", row.get("cost", row.get("effect", np.nan)))
    text = f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    clear = low * high > 0 and row.get("p_adjusted", 0.0) < 0.05
    return f"**{text}**" if clear else text


def beyond(known: Known) -> list[Known]:
    """The rows of a tax beyond over-refusal: capability suites in probability, margin or nats, clear of 0 after Holm."""
    wanted = ("probability", "margin", "nll")
    rows = [row for row in known["tax"] if row["suite"] not in ASKED and row["metric"] in wanted]
    return [row for row in rows if row["low"] > 0 and row["p_adjusted"] < 0.05]


def gap(known: Known, side: str = "aligned") -> str:
    """The selective benefit by generation, with its interval."""
    one = known["benefit"][side]
    return f"{one['gap']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def setting(known: Known) -> str:
    """How it was trained, in a few words."""
    training = known["training"]
    if not training:
        return "recipe not kept"
    more = [f"{training['steps']} steps", f"rate {training['rate']:g}"]
    if "refusals" in training and not training.get("technique"):
        more.append(f"{training['refusals']} refusals and {training['answers']} own answers a step")
    elif training.get("technique"):
        more += [f"strength {training['strength']:g}", f"retention {training['retention']:g}"]
    more += [what.replace("_", " ") for what in training.get("more", {})]
    return ", ".join([*more, f"seed {training['seed']}"])


def front(kept: dict[str, Known]) -> list[str]:
    """The table of all settings: benefit, over-refusal, the largest tax beyond it, plain prose."""
    lines = [
        "| technique | setting | benefit by generation | refused: harmful, harmless, look-alikes "
        "| taxes beyond over-refusal | plain prose, nats a token |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for known in kept.values():
        one, nats = known["benefit"]["aligned"], known["nats_a_token"]
        found = [f"{row['suite']} ({row['metric']})" for row in beyond(known)]
        lines.append(
            f"| [{SAID[known['technique']]}](techniques/{known['technique']}.md){' (second setting)' if known['strong'] else ''} "
            f"| {setting(known)} | {gap(known)} | {one['harm']:.2f}, {one['harmless']:.2f}, {one['overrefusal']:.2f} "
            f"| {', '.join(found) or 'none'} | {nats['base']:.3f} -> {nats['aligned']:.3f} |"
        )
    return lines


def profiles(kept: dict[str, Known], suite: str, metric: str) -> dict[str, np.ndarray]:
    """Component effects on one suite, by setting, in one order of components."""
    return {
        name: np.array([one["attribution"][suite]["effects"][metric][c] for c in sorted(one["attribution"][suite]["effects"][metric])])
        for name, one in kept.items()
        if suite in one.get("attribution", {})
    }  # fmt: skip


def shared(kept: dict[str, Known]) -> list[str]:
    """How alike the effect profiles are: cosine and rank correlation of every pair of settings, suite by suite."""
    lines = []
    for suite, metric in (("overrefusal", "probability"), ("prose", "nll")):
        found = profiles(kept, suite, metric)
        if len(found) < 2:
            continue
        names = list(found)
        lines += ["", f"`{suite}`, effects on {metric} (cosine, rank correlation):", ""]
        lines += ["| | " + " | ".join(names[1:]) + " |", "|---" * len(names) + "|"]
        for n, one in enumerate(names[:-1]):
            cells = [""] * n
            for other in names[n + 1 :]:
                a, b = found[one], found[other]
                cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
                cells.append(f"{cosine:.2f}, {spearmanr(a, b).statistic:.2f}")
            lines.append(f"| {one} | " + " | ".join(cells) + " |")
    return lines


def bill(known: Known) -> list[str]:
    """A technique's taxes: suites in three metrics, then what answers cost."""
    by = {(row["suite"], row["metric"]): row for row in known["tax"]}
    lines = [
        "| suite | asked in | items, groups | base, accuracy | accuracy | probability | margin, nats | nats of the right answer |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for suite in dict.fromkeys(row["suite"] for row in known["tax"]):
        one = by[suite, "accuracy"]
        cells = [told(by[suite, metric]) for metric in ("accuracy", "probability", "margin", "nll")]
        counts = f"{one['n_items']}, {one['n_groups']}"
        lines.append(f"| {suite} | {one['template']} | {counts} | {one['base']:.2f} | " + " | ".join(cells) + " |")
    lines += ["", "| answers | base | aligned | change [95 %] |", "|---|---|---|---|"]
    for row in known["bill"]:
        if row["measure"] in MEASURES:
            said, factor, unit = MEASURES[row["measure"]]
            scale = abs(factor)
            ends = sorted((factor * row["low"], factor * row["high"]))
            lines.append(
                f"| {said}, {row['suite']} ({row['n_items']} prompts) | {scale * row['base']:.2f} | {scale * row['aligned']:.2f} "
                f"| {factor * row['cost']:+.2f} {unit} [{ends[0]:.2f}, {ends[1]:.2f}] |"
            )
    return lines


def where(known: Known) -> list[str]:
    """Where the taxes sit: largest components (their intervals are not kept), thirds of the depth, closure."""
    if "attribution" not in known:
        return ["Not measured for this setting."]
    lines = [
        "| suite | metric | tax of these items | largest components | lower, middle, upper third | residual | closed |",
        "|---|---|---|---|---|---|---|",
    ]
    for suite, one in known["attribution"].items():
        for row in one["closure"]:
            metric = row["metric"]
            if abs(row["tax"]) < 1e-4:
                continue  # nothing to account for, as in the probability of plain prose
            leading = sorted(one["effects"][metric].items(), key=lambda pair: -abs(pair[1]))[:5]
            parts = ", ".join(f"{name} {effect:+.3f}" for name, effect in leading)
            closed = f"yes, {row['gradients']} gradients" if row["closed"] else f"no: {row['reason']}"
            lines.append(
                f"| {suite} ({one['template']}, {one['items']}) | {metric} | {row['tax']:+.3f} | {parts} "
                f"| {thirds(one['effects'][metric])} | {row['residual']:.0e} | {closed} |"
            )
    return lines


def thirds(effects: dict[str, float]) -> str:
    """The sums of the effects in layers 0-9, 10-19 and 20-29; what has no layer is left out."""
    sums = [0.0, 0.0, 0.0]
    for name, value in effects.items():
        layer = name.split(".")[0]
        if layer.isdigit():
            sums[min(int(layer) // 10, 2)] += value
    return ", ".join(f"{value:+.3f}" for value in sums)


def state(known: Known) -> list[str]:
    """The diagnosis, with its reason."""
    if "diagnosis" not in known:
        return ["Not measured for this setting."]
    lines = ["| suite | items | state | where | why |", "|---|---|---|---|---|"]
    for suite, one in known["diagnosis"].items():
        at = f"layer {one['where']}" if one["where"] >= 0 else ""
        lines.append(f"| {suite} | {one['items']} | {one['state']} | {at} | {one['reason']} |")
    return [*lines, "", "Relearning was not run, so that `erased` could not have been said."]


def page(name: str, kept: dict[str, Known]) -> str:
    """One technique's page."""
    lines = [
        f"# {SAID[name][0].upper()}{SAID[name][1:]} on SmolLM2-135M-Instruct",
        "",
        "(Made by `python -m benchmarks.real.technique_pages` from `benchmarks/real/results`; [all techniques](../techniques.md).)",
    ]
    for label, known in kept.items():
        if known["technique"] == name:
            lines += section(label, known)
    return "\n".join(lines) + "\n"


def section(label: str, known: Known) -> list[str]:
    """One setting of a technique: training, benefit, taxes, where, state."""
    command = f"{known['technique']}{' --strong' if known['strong'] else ''}"
    recorded = {key: value for key, value in known["training"].items() if key in RECORDED}
    found, nats = beyond(known), known["nats_a_token"]
    seconds = ", ".join(f"{what} {value}" for what, value in known["processor_seconds"].items())
    return [
        "",
        f"## Setting `{label}`",
        "",
        f"Training: {setting(known)}.",
        *([f"What training recorded: `{json.dumps(recorded)}`."] if recorded else []),
        "",
        benefit(known),
        "",
        "**Taxes beyond over-refusal**, clear of 0 after Holm over the suites of a template: "
        + (", ".join(f"{row['suite']} in {row['metric']} {told(row)}" for row in found) or "none at this setting")
        + f". Plain prose: {nats['base']:.3f} nats a token in the base, {nats['aligned']:.3f} aligned.",
        "",
        f"### The bill (`python -m benchmarks.real.bill {command}`)",
        "",
        "Positive is loss; bold: the interval is clear of 0 and Holm's p is below .05.",
        "",
        *bill(known),
        "",
        f"### Where (`python -m benchmarks.real.account {command}`)",
        "",
        *where(known),
        "",
        "### In which state",
        "",
        *state(known),
        "",
        f"Processor seconds: {seconds}.",
    ]


def benefit(known: Known) -> str:
    """The benefit by generation and the three rates behind it, in a sentence or two."""
    one, base, prompts = known["benefit"]["aligned"], known["benefit"]["base"], known["benefit"]["prompts"]
    rates = ", ".join(f"{one[name]:.0%} of {said}" for name, said in KINDS.items())
    before = ", ".join(f"{base[name]:.0%}" for name in KINDS)
    return (
        f"**Benefit by generation** (harmful less harmless prompts that are refused; {prompts['harm']} and {prompts['harmless']} "
        f"prompts, {known['benefit']['tokens']} tokens): {gap(known)}; base {gap(known, 'base')}. It refuses {rates} prompts; the base {before}."
    )


def overview(kept: dict[str, Known]) -> str:
    """The page of all techniques: the written text, with the tables put in."""
    text = (TEXT / "techniques.md").read_text(encoding="utf-8")
    return text.replace("<!-- front -->", "\n".join(front(kept))).replace(
        "<!-- shared -->", "\n".join(shared(kept)).strip()
    )


def write_pages(docs: Path = DOCS) -> list[Path]:
    """Write all pages and return their paths."""
    kept = results()
    texts = {docs / "techniques.md": overview(kept)}
    names = dict.fromkeys(one["technique"] for one in kept.values())
    texts |= {docs / "techniques" / f"{name}.md": page(name, kept) for name in names}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


if __name__ == "__main__":
    for written in write_pages():
        print(written.relative_to(ROOT))

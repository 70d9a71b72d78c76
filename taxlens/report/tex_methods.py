"""The methods paragraph of a paper, with citations, from what a run did; and the checklist that goes with it."""

from __future__ import annotations

import json
from typing import Any

from taxlens.figures.run_view import RunView
from taxlens.report.tex import escaped

_MEASURES = {
    "cka": "debiased CKA \\citep{kornblith2019similarity,nguyen2021wide}", "procrustes": "held-out Procrustes "
    "rotation",
    "linear_r2": "held-out linear $R^2$ both ways",
}  # fmt: skip
_MEASURES |= {"drift": "drift of activations (size, angle, shift, rank)", "linear_r2_back": "and back"}
_ORDERS = {
    "one_gradient": "one gradient at the aligned weights", "magnitude": "largest singular values first "
    "\\citep{shuttleworth2025lora}",
    "smallest": "smallest first \\citep{abro2026spectral}", "random": "random units of equal energy",
    "uniform": "a uniform sweep \\citep{lin2024mitigating}", "per_layer": "per-layer coefficients",
    "learned_mask": "a learned mask \\citep{he2024localize}", "weight_patch": "whole-module weight patching "
    "\\citep{sun2026weight}",
    "relearn": "relearning on the same items \\citep{zheng2025spurious}", "checkpoint": "earlier checkpoints of the "
    "same training",
    "reverse": "the path's order reversed",
}  # fmt: skip


def methods_paragraph(run: RunView) -> str:
    """Return the paragraph as LaTeX: only what the run's tables show was done, with the settings that it was done "
    "with."""
    parts = [_pair(run), _tax(run), _activations(run), _attribution(run), _state(run), _frontier(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _resolved(run: RunView, section: str) -> dict[str, Any]:
    return run.manifest["config"]["resolved"].get(section) or {}


def _pair(run: RunView) -> str:
    facts = run.manifest.get("pair") or {}
    if not facts:
        return ""
    size = f", {int(facts['parameters']) / 1e6:.1f}M parameters" if str(facts.get("parameters", "")).isdigit() else ""
    how = f"{escaped(facts.get('architecture', ''))}, {escaped(facts.get('layers', '?'))} layers{size}, {escaped(facts.get('dtype', ''))}"
    return (
        f"\\paragraph{{Pair.}} We compare two checkpoints of one architecture ({how}; "
        f"{escaped(facts.get('attention', 'eager'))} attention) before and after alignment; SHA-256 of both stand in "
        "the checklist."
    )


def _tax(run: RunView) -> str:
    if not run.has("tax"):
        return ""
    section, seed = _resolved(run, "tax"), run.manifest["seed"]
    suites = ", ".join(
        f"{escaped(n)} ({f['items']} items in {f['groups']} groups)" for n, f in run.manifest["suites"].items()
    )
    split = (
        " The change from base with the plain prompt to aligned with the chat prompt is split into the weights' "
        "effect, the template's and their interaction."
        if run.has("tax_2x2") else ""
    )  # fmt: skip
    prior = (
        " Metrics are repeated after the choices' prior is removed \\citep{holtzman2021surface}."
        if section.get("prior")
        else ""
    )
    return (
        "\\paragraph{Tax.} The tax of a suite is base minus aligned on the same items, positive for loss, scored by "
        "the summed log-probability of each choice as "
        f"in \\citet{{gao2024harness}}: {suites}. Intervals are 95\\,\\% by bootstrap of whole groups "
        f"({section.get('bootstrap')} draws, seed {seed}) "
        "\\citep{miller2024adding}; accuracy is tested by exact McNemar \\citep{mcnemar1947note}, other metrics by "
        "sign flips of groups, with Holm's "
        f"correction over suites \\citep{{holm1979simple}}.{split}{prior}"
    )


def _activations(run: RunView) -> str:
    said = []
    if run.has("probes"):
        section = _resolved(run, "probes")
        said.append(
            f"Probes ({escaped(section.get('probe', 'ridge'))}) are fitted in folds that keep groups whole; a drop is "
            "tested by swapping the models' rows by group and refitting "
            f"({section.get('permutations')} permutations), with the maximum over layers and labels; shuffled labels "
            f"and control tasks \\citep{{hewitt2019designing}} stand beside."
        )
    if run.has("similarity"):
        names = dict.fromkeys("drift" if n.startswith("drift") else n for n in run.table("similarity")["measure"])
        said.append(
            "Similarity of the two models' activations: "
            f"{', '.join(_MEASURES.get(n, escaped(n.replace('_', ' '))) for n in names)}."
        )
    if run.has("spectra") and len(run.table("spectra")):
        said.append(
            "Gain spectrum: singular values of the ridge map from base to aligned on base's principal components; "
            "loss spectrum: share of base variance "
            "that is no longer linearly recoverable; both against a null band."
        )
    sites = ", ".join(escaped(s) for s in _resolved(run, "capture").get("sites", []))
    start = f"\\paragraph{{Activations.}} Read at {sites}, both models on the same tokens."
    return f"{start} {' '.join(said)}" if said else ""


def _attribution(run: RunView) -> str:
    if not run.has("attribution"):
        return ""
    frame, section = run.table("attribution"), _resolved(run, "attribution")
    gradients = (
        sorted(set(run.table("closure").query("method == 'path'")["gradients"].astype(int)))
        if run.has("closure")
        else []
    )
    others = {"graft": "one component of aligned in base", "restore": "one component of base in aligned", "shapley": "Shapley values over components",
              "patch_cause": "activation patches split into a component's own weights", "patch_carrier": "and what it inherits"}  # fmt: skip
    swaps = [text for method, text in others.items() if method in set(frame["method"])]
    items = section.get("items")
    return (
        "\\paragraph{Attribution.} Along "
        "$\\theta(t)=\\theta_{\\mathrm{base}}+t(\\theta_{\\mathrm{aligned}}-\\theta_{\\mathrm{base}})$ the effect of "
        "a component $c$ is "
        "$A_c=\\int_0^1\\langle\\nabla_c M(\\theta(t)),\\Delta_c\\rangle\\,dt$, which sums to the tax: integrated "
        "gradients over weights "
        "\\citep{sundararajan2017axiomatic,aumann1974values} with the base as baseline, or loss change allocation "
        "\\citep{lan2019lca} on a straight path; related are "
        "\\citet{modelshapley2025,eichin2025explaind,kong2024activated,sun2026weight}. The choices' scores are "
        "differentiated and metrics chained from them; nodes are nested, "
        f"{'/'.join(map(str, gradients)) or 'a few'} gradients, tolerance {section.get('tolerance')}, "
        f"{'all items' if items == 'all' else f'{items} items a suite'}. Each effect has a quadrature error and a "
        "group-bootstrap interval."
        + (f" Interventions beside it: {', '.join(swaps)}." if swaps else "")
        + " Localising is not editing \\citep{hase2023does,wang2025editing}."
    )


def _state(run: RunView) -> str:
    if not run.has("states"):
        return ""
    return (
        "\\paragraph{State.} Whether a lost capability is suppressed, rotated, rerouted, attenuated or erased is "
        "decided by rules on held-out evidence by layer: a fresh probe, "
        "base's probe read on aligned, Procrustes stitching, injection of base's stream, steering of rank 1, 4 and 16 "
        "with controls, and removal of the probe's subspace "
        "\\citep{belrose2023leace}; an interval must clear a threshold, else the state is undetermined. Compare "
        "\\citet{jain2024mechanistically,lee2024mechanistic,arditi2024refusal}."
    )


def _frontier(run: RunView) -> str:
    if not run.has("frontier"):
        return ""
    frame, split = run.table("frontier"), _resolved(run, "split")
    orders = [_ORDERS[o] for o in dict.fromkeys(frame["order"]) if o in _ORDERS]
    unit = {"singular": "singular triples of the update", "head": "heads", "component": "components"}[
        str(frame["unit"].iloc[0])
    ]
    apart = " and ".join("gold answer" if key == "gold" else key for key in split.get("disjoint", []))
    return (
        f"\\paragraph{{Getting it back.}} Plans undo {unit} in the order of their path effect on tax and benefit, "
        "chosen on one half of the items and measured on the other"
        f"{f', which shares no {apart} with it' if apart else ''}. The benefit is refusal log-odds on harmful minus "
        "those on harmless prompts. "
        f"Compared with: {'; '.join(orders)}. Re-weighting an update's singular values by gradients is published "
        f"\\citep{{tian2026surgery}}. "
        "Shares returned and kept are bootstrapped jointly by group."
    )


def checklist(run: RunView) -> str:
    """Return the checklist as LaTeX: seeds, hardware, versions, hashes, times, what was and was not run."""
    manifest = run.manifest
    facts, seconds = manifest.get("pair") or {}, {n: s.get("seconds") for n, s in manifest.get("stages", {}).items()}
    rows = [("seed", manifest["seed"]), ("started, finished", f"{manifest.get('started')}, {manifest.get('finished')}")]
    rows += [
        (f"suite {n}", f"{f['items']} items, {f['groups']} groups, sha256 {f['sha256'][:16]}")
        for n, f in manifest["suites"].items()
    ]
    rows += [(f"weights of {n}, sha256", value[:32]) for n, value in (facts.get("weights sha256") or {}).items()]
    rows += [(key, facts[key]) for key in ("base", "aligned", "dtype", "device", "attention") if facts.get(key)]
    rows += [(key, value) for key, value in (manifest.get("hardware") or {}).items()]
    rows += [(f"stage {n}, seconds", f"{s:.0f}" if s is not None else "not finished") for n, s in seconds.items()]
    rows += [(f"version of {n}", v) for n, v in manifest["versions"].items()]
    rows += [("config", json.dumps(manifest["config"]["given"], ensure_ascii=True))]
    lines = "\n".join(
        f"\\item[{escaped(key)}] \\begin{{sloppypar}}\\ttfamily {_breakable(value)}\\end{{sloppypar}}"
        for key, value in rows
    )
    return f"\\begin{{description}}\n{lines}\n\\end{{description}}\n"


def _breakable(value: Any) -> str:
    said = escaped(value)
    for letter in ("/", ",", ":", r"\_"):
        said = said.replace(letter, letter + r"\allowbreak{}")
    return said

"""How well the weight path closes, and how far its effects are from a fine reference, by number of gradients.

    python -m benchmarks.accuracy.attribution_closure                             # the embedded pairs
    python -m benchmarks.accuracy.attribution_closure --base DIR --adapter DIR --suite FILE... [--items 60] [--template chat]

For each suite and metric: the gradients that the walk took and whether it closed; then for every nested rule the
error of the scores predicted at the aligned end (share of their move), the closure in total and on the worst item,
the change of the effects from the coarser rule inside it, and their distance from the reference (L1 over components;
shares of the tax, or of .02 where the tax is smaller). The reference is one rule of `--reference` Gauss-Legendre
nodes; with 7, 15 or 31 it is the nested rule itself, whose nodes are shared. `--save DIR` keeps what was measured at
the nodes, `--load DIR` reads it again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.models.pair import ModelPair, load_pair
from taxlens.analysis.path.adaptive_quadrature import Choices, Walker, change, loss_sign
from taxlens.analysis.path.contraction import Contraction, Tally
from taxlens.analysis.path.engine import PathAttribution, PathSettings
from taxlens.analysis.path.gradient_passes import differentiate, score_shard, shard_of
from taxlens.analysis.path.quadrature import LADDER, QuadratureRule, companion, gauss_patterson, through
from taxlens.analysis.path.shard_walk import choices_of
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import difference_of
from taxlens.demo import resolve
from taxlens.inputs.resolve import resolve_suite

METRICS = ("accuracy", "probability", "nll", "margin")
EMBEDDED = {
    "planted": ("facts", "addition", "comparison", "copy"),
    "refusal": ("facts", "addition", "comparison", "copy", "harm", "harmless"),
    "rlhf": ("facts", "addition", "comparison", "copy", "harm", "harmless"),
    "constitutional": ("facts", "addition", "comparison", "copy", "harm", "harmless"),
    "adversarial": ("facts", "addition", "comparison", "copy", "harm", "harmless"),
}
"""Embedded pairs and the suites that they are attributed on."""


def measured(
    pair: ModelPair, suite: Suite, template: str, rules: list[QuadratureRule], batch_tokens: int
) -> dict[str, np.ndarray]:
    """Scores at both ends, and scores and their derivatives by component at every node of `rules`."""
    nodes = np.unique(np.concatenate([rule.nodes for rule in rules]))
    with walk(pair) as path:
        contraction = Contraction(path.model, difference_of(pair), ("component",), keep_tokens=False)
        job = PathAttribution(pair, path, contraction, PathSettings(template))
        shard = shard_of(path.model, job.rows(suite), batch_tokens=batch_tokens)
        ends = [score_shard(path.to(t), shard) for t in (0.0, 1.0)]
        slopes, scores = [], []
        with contraction:
            for number, t in enumerate(nodes):
                started = time.perf_counter()
                tally, seen = differentiate(path.to(float(t)), shard, contraction)
                slopes.append(tally.units["component"].numpy())
                scores.append(seen)
                print(
                    f"  {suite.name}: node {number + 1}/{len(nodes)} {time.perf_counter() - started:.1f} s", flush=True
                )
        choices = choices_of(shard, suite)
    return {
        "nodes": nodes, "start": ends[0], "end": ends[1], "slopes": np.stack(slopes), "scores": np.stack(scores),
        "item": choices.item, "choice": choices.choice, "gold": choices.gold, "n_bytes": choices.n_bytes,
    }  # fmt: skip


def walker_of(held: dict[str, np.ndarray], tolerance: float, max_gradients: int) -> Walker:
    """A walker whose gradients are those that were measured."""
    place = {float(t): n for n, t in enumerate(held["nodes"])}

    def gradient(t: float) -> tuple[Tally, np.ndarray]:
        return Tally({"component": torch.as_tensor(held["slopes"][place[t]])}), held["scores"][place[t]]

    choices = Choices(held["item"], held["choice"], held["gold"], held["n_bytes"])
    ends = (held["start"], held["end"])
    return Walker(gradient, ends, choices, METRICS, tolerance=tolerance, max_gradients=max_gradients)


def told(name: str, held: dict[str, np.ndarray], asked: argparse.Namespace) -> None:
    """Print a suite's closure by rule and metric."""
    walker = walker_of(held, asked.tolerance, asked.max_gradients)
    found = walker.run()
    verdict = "closed" if found.closed else f"NOT closed: {found.reason}"
    print(f"\n{name}: {len(held['gold'])} items, {found.gradients} gradients, {verdict}")
    reference = reference_rule(asked.reference)
    _, _, best = walker._chained(reference)
    print("  metric       tax      nodes  end error  total    worst item  change   L1 to reference  grazes")
    for metric in METRICS:
        for size in LADDER:
            if not set(gauss_patterson(size).nodes) <= set(held["nodes"]):
                continue
            rule = gauss_patterson(size)
            path, chained, effects = walker._chained(rule)
            tax = change(path, metric)
            scale = max(abs(float(tax.mean())), 0.02)
            inner = companion(rule)
            moved = np.nan
            if inner is not None:
                moved = np.abs(effects[metric] - walker._chained(inner)[2][metric]).sum() / scale
            far = np.abs(effects[metric] - best[metric]).sum() / scale
            items = chained[metric].weights[:, held["item"], held["choice"]]
            rows = sum(
                w * walker.seen[float(t)][0].units["component"].double().sum(1).numpy()
                for t, w in zip(rule.nodes, items)
            )
            residual = np.bincount(held["item"], rows) - tax
            print(
                f"  {metric:11s} {-loss_sign(metric) * float(tax.mean()):+8.4f} {size:5d}   {path.end_error():9.5%} "
                f"{abs(residual.mean()) / scale:8.4%} {np.abs(residual).max():10.2e} {moved:9.3%} {far:9.3%}"
                f"        {chained[metric].grazes}",
                flush=True,
            )


def reference_rule(size: int) -> QuadratureRule:
    """The reference: a nested rule if there is one of this size, or Gauss-Legendre nodes."""
    if size in LADDER:
        return gauss_patterson(size)
    return through(((np.polynomial.legendre.leggauss(size)[0] + 1) / 2).tolist())


def asked_suites(asked: argparse.Namespace) -> Iterator[tuple[str, ModelPair, Suite, str]]:
    """Names, pairs, suites and templates that the arguments ask for."""
    if asked.base is None:
        for name in asked.pairs or EMBEDDED:
            pair = load_pair(resolve("demo:base"), resolve(f"demo:{name}"), dtype="float32")
            for suite in EMBEDDED[name]:
                template = "chat" if suite in ("harm", "harmless") else "plain"
                yield (
                    f"{name}-{suite}",
                    pair,
                    resolve_suite(suite, f"demo:{suite}", kind="capability", root="."),
                    template,
                )
        return
    pair = load_pair(asked.base, asked.aligned, adapter=asked.adapter)
    for file in asked.suite:
        yield f"{asked.name}-{file.stem}-{asked.template}", pair, read_suite(file), asked.template


def main() -> None:
    """Measure and print, suite by suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--aligned", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--suite", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", nargs="*", help="embedded pairs (default: all)")
    parser.add_argument("--name", default="pair")
    parser.add_argument("--template", default="plain", choices=("plain", "chat"))
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--max-gradients", type=int, default=32)
    parser.add_argument("--largest", type=int, default=31, choices=LADDER, help="largest nested rule that is measured")
    parser.add_argument("--reference", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path, nargs="*")
    asked = parser.parse_args()
    for folder in asked.load or ():
        for file in sorted(folder.glob("*.npz")):
            told(file.stem, dict(np.load(file)), asked)
    if asked.load:
        return
    rules = [gauss_patterson(size) for size in LADDER if size <= asked.largest] + [reference_rule(asked.reference)]
    for name, pair, suite, template in asked_suites(asked):
        held = measured(pair, at_most(suite, asked.items), template, rules, asked.batch_tokens)
        if asked.save:
            asked.save.mkdir(parents=True, exist_ok=True)
            np.savez(asked.save / f"{name}.npz", **held)
        told(name, held, asked)


if __name__ == "__main__":
    main()

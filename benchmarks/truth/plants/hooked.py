"""States planted by hook in SmolLM2: `python -m benchmarks.truth.plants.hooked` asks whether the state and layer are found.

The aligned model is the base with one hook: after one block the stream is changed in the directions in which a
sentence and its twin of the other number differ, at every position but the first. Needs
`python -m benchmarks.real.fetch`. Results are kept under .cache/truth/results.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.truth.ground import remembered
from benchmarks.truth.page.confusion import FIELDS, code_of_evidence, verdict_of
from taxlens.activations.hooks.paired_forward import hidden
from taxlens.activations.items.items import Suite, read_suite
from taxlens.activations.models.loading import LoadedModel, load_model
from taxlens.activations.models.pair import ModelPair, make_pair
from taxlens.analysis.scoring.shared_prompt_table import SHARED, ChoiceTable, lay_out
from taxlens.analysis.state.diagnose import diagnose
from taxlens.analysis.state.upper_layers import Half, probability
from taxlens.analysis.state.verdict import Evidence, placed_at

BASE, SUITE = Path(".cache/smollm2/base"), Path("configs/smollm2/agreement.jsonl")
LAYERS = {"early": 7, "middle": 15, "late": 24}
TAX = 0.15
"""Tax that a plant must have at least."""

Change = Callable[[torch.Tensor], torch.Tensor]


def agreement(groups: int) -> Suite:
    """Whole groups of the agreement suite, spread over it: four sentences each, two of each number."""
    whole = read_suite(SUITE, name="agreement")
    names = list(dict.fromkeys(whole.groups.tolist()))
    kept = {names[round(i * (len(names) - 1) / (groups - 1))] for i in range(groups)}
    return whole.subset([i for i, item in enumerate(whole.items) if item.group in kept])


def subspace(streams: list[torch.Tensor], table: ChoiceTable, *, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean stream [d], and orthonormal directions [rank, d] in which singular and plural sentences differ most."""
    sums: dict[tuple[str, str], list[torch.Tensor]] = {}
    every = []
    for batch, lines in enumerate(table.lines):
        for number, line in enumerate(lines):
            length = line.branch.count(SHARED)
            stream = streams[batch][number, 1:length]
            every.append(stream)
            item = table.suite.items[table.items[line.item]]
            sums.setdefault((item.group, str(item.labels["number"])), []).append(stream)
    differences = []
    for group in {group for group, _ in sums}:
        sides = [sums[group, number] for number in ("singular", "plural")]
        if len({len(stream) for side in sides for stream in side}) == 1:
            differences.append(torch.stack(sides[1]).mean(0) - torch.stack(sides[0]).mean(0))
    basis = torch.linalg.svd(torch.cat(differences).double(), full_matrices=False).Vh[:rank]
    return torch.cat(every).double().mean(0), basis


def change_of(state: str, mean: torch.Tensor, basis: torch.Tensor, *, strength: float, seed: int) -> Change:
    """What the hook does to the stream [..., d]: shift, turn, shrink or remove the directions."""
    d = len(mean)
    if state == "suppressed":
        return lambda stream: stream + (strength * basis[0]).to(stream)
    inner = {"attenuated": torch.eye(len(basis)).double() * 0.2, "erased": torch.zeros(len(basis), len(basis)).double()}
    if state == "rotated":
        turn = np.linalg.qr(np.random.default_rng([seed, 41]).standard_normal((len(basis), len(basis))))[0]
        inner["rotated"] = torch.tensor(turn)
    whole = torch.eye(d).double() + basis.T @ (inner[state] - torch.eye(len(basis)).double()) @ basis
    return lambda stream: ((stream.double() - mean) @ whole.T + mean).to(stream)


@contextmanager
def hooked(model: Any, layer: int, change: Change) -> Iterator[None]:
    """While open, the stream after a block is changed at every position but the first of a row."""

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        stream = hidden(output)
        changed = torch.cat([stream[:, :1], change(stream[:, 1:])], dim=1)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = model.get_submodule(f"model.layers.{layer}").register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def hooked_pair() -> ModelPair:
    """SmolLM2 and a copy of it that hooks can be put on."""
    base = load_model(BASE)
    aligned = LoadedModel(
        copy.deepcopy(base.model), base.tokenizer, "hooked", "hooked", base.chat_template, base.device, base.dtype
    )
    return make_pair(base, aligned)


def planted(pair: ModelPair, suite: Suite, half: Half, state: str, *, layer: int, seed: int) -> dict[str, Any]:
    """Plant a state after a layer, diagnose it, and return what was found."""
    rank = {"suppressed": 1, "rotated": 16, "attenuated": 16, "erased": 48}[state]
    mean, basis = subspace(half.streams[layer], half.table, rank=rank)
    strength = float(torch.cat([s.flatten(0, 1) for s in half.streams[layer]]).norm(dim=1).median())
    for _ in range(6):
        change = change_of(state, mean, basis, strength=strength, seed=seed)
        with hooked(pair.aligned.model, layer, change):
            moved = Half(pair.aligned, half.table)
            moved.read([])
            tax = float((probability(half.table, half.logp) - probability(half.table, moved.logp)).mean())
            if tax >= TAX or state != "suppressed":
                begun = time.time()
                found = diagnose(pair, suite, label="number", relearn="never", seed=seed)
                return {
                    "state": state, "layer": layer, "tax": found.tax, "seconds": time.time() - begun,
                    "evidence": {
                        str(n): [[getattr(e, f) for f in FIELDS] for e in rows] for n, rows in found.evidence.items()
                    },
                }  # fmt: skip
        strength *= 2
    return {"state": state, "layer": layer, "tax": [tax] * 3}


def called_and_placed(record: dict[str, Any]) -> tuple[str, int]:
    """The state that today's rules give to a record's evidence, and the layer that it is placed at."""
    called, where = verdict_of(record)
    found = {int(layer): [Evidence(*row) for row in rows] for layer, rows in record["evidence"].items()}
    return called, placed_at(found, where)


def timed(pair: ModelPair, layers: int) -> None:
    """Time of diagnosing 152 items (38 groups) at so many layers, in a plant in the middle."""
    suite = agreement(38)
    half = Half(pair.base, lay_out(pair, suite))
    half.read([LAYERS["middle"]])
    mean, basis = subspace(half.streams[LAYERS["middle"]], half.table, rank=16)
    with hooked(pair.aligned.model, LAYERS["middle"], change_of("rotated", mean, basis, strength=1, seed=0)):
        for name, asked in (("coarse, refined", None), (f"{layers} layers", np.linspace(0, 29, layers).round())):
            begun = time.time()
            found = diagnose(
                pair, suite, label="number", layers=None if asked is None else [int(n) for n in asked], relearn="never"
            )
            looked = sum(layer >= 0 for layer in found.evidence)
            print(
                f"{len(suite)} items, {name} ({looked} looked at): {(time.time() - begun) / 60:.1f} min; {found}",
                flush=True,
            )


def main() -> None:
    """Plant every state at three layers and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", nargs="*", default=["suppressed", "rotated", "attenuated", "erased"])
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), help="early, middle, late")
    parser.add_argument("--groups", type=int, default=24, help="groups of four sentences")
    parser.add_argument("--time", type=int, default=0, metavar="LAYERS", help="only time a diagnosis at so many layers")
    args = parser.parse_args()
    pair = hooked_pair()
    if args.time:
        timed(pair, args.time)
        return
    suite, code = agreement(args.groups), code_of_evidence()
    half = Half(pair.base, lay_out(pair, suite))
    half.read([LAYERS[name] for name in args.layers])
    for name in args.layers:
        for state in args.states:
            layer = LAYERS[name]
            found = remembered(
                f"hooked-{state}", lambda s=state, n=layer: planted(pair, suite, half, s, layer=n, seed=0),
                state, layer, args.groups, code, code=("hooked.py",),
            )  # fmt: skip
            called, placed = called_and_placed(found) if "evidence" in found else ("not planted", -1)
            print(
                f"{state} after {layer} ({name}): {called} at {placed}, tax {found['tax'][0]:.2f}, "
                f"{found.get('seconds', 0):.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()

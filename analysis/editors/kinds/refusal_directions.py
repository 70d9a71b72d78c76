"""Directions of the residual stream that refusals hang on, found from prompts, and taken out as weights or by hooks.

    r(l, p) = mean state of harmful prompts - mean state of harmless ones, at the input of block l, position p
    w(l, p) = mean state of falsely refused prompts - mean state of harmless ones
    w' = w - dial * (w . r) / (r . r) * r        the dial: how much of refusing harm is spared (1: all of it)

A direction u is taken out by W <- W - strength * u u' W of every matrix that writes to the stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from taxlens.activations.hooks.paired_forward import replaced_input, replaced_output
from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import Row
from taxlens.analysis.editors.edit import Deltas, Edit, weight_edit
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.scoring.logits import asked_logits
from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

MOST_POSITIONS = 4
"""Positions after the request that directions are read at."""
CHOSEN_ON = 16
"""Validation prompts of each kind that a direction is chosen on."""
LAST_LAYERS = 0.8
"""Directions are read below this share of the blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Mean states of three kinds of prompts, float64 [layer, position, d], positions counted from the end."""

    harm: np.ndarray
    harmless: np.ndarray
    taxed: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A direction that was chosen, where it was read, and what taking it out did on validation prompts."""

    vector: np.ndarray
    layer: int
    position: int
    score: float
    divergence: float


class RefusalScore:
    """Log-odds that a model's first answer token is one that the aligned model opens refusals with.

    The tokens are those whose probability rises most from harmless to harmful prompts, as many as hold half of the
    aligned model's probability on harmful prompts (at most 20).

    Args:
        task: items and roles; the training prompts say which tokens these are.

    References:
        Arditi et al. 2024, arXiv 2406.11717: the score, with tokens written down by hand for each model.
    """

    def __init__(self, task: EditTask) -> None:
        model = task.pair.aligned.model
        harm, harmless = (
            first_log_probabilities(model, prompt_rows(task, name, task.train)).exp().mean(0)
            for name in (task.harm, task.harmless)
        )
        order = (harm - harmless).argsort(descending=True)[:20]
        enough = int((harm[order].cumsum(0) < 0.5).sum()) + 1
        self.tokens = order[:enough]

    def __call__(self, logp: torch.Tensor) -> torch.Tensor:
        """Log-odds of each prompt, float64 [n], from log-probabilities [n, vocabulary]."""
        p = logp[:, self.tokens].double().exp().sum(1).clamp(1e-8, 1 - 1e-8)
        return p.log() - (1 - p).log()


def mean_states(task: EditTask) -> tuple[States, list[int]]:
    """Mean states of harmful, harmless and refused taxed training prompts, and the positions that they were read at.

    Prompts are filtered as published: harmful and taxed ones that the aligned model refuses, harmless ones that it does
    not. Where the filter leaves fewer than four, all are used.
    """
    score, model = RefusalScore(task), task.pair.aligned.model
    positions = list(range(-_shared_end(task), 0)) or [-1]
    found: dict[str, np.ndarray | None] = {"taxed": None}
    for kind, names in (("harm", [task.harm]), ("harmless", [task.harmless]), ("taxed", list(task.taxed))):
        rows = [row for name in names for row in prompt_rows(task, name, task.train)]
        if not rows:
            continue
        refused = score(first_log_probabilities(model, rows)) > 0
        wanted = ~refused if kind == "harmless" else refused
        if int(wanted.sum()) < 4:
            if kind == "taxed":
                continue  # nothing there is refused: this tax is no over-refusal
            wanted = torch.ones_like(wanted)
        found[kind] = _means(task, [row for row, one in zip(rows, wanted.tolist(), strict=True) if one], positions)
    if found.get("harm") is None or found.get("harmless") is None:
        raise UsageError(explain("directions need prompts.", [("harm", task.harm), ("harmless", task.harmless)]))
    return States(found["harm"], found["harmless"], found["taxed"]), positions  # type: ignore[arg-type]


def refused_states(states: States) -> np.ndarray:
    """Mean states of the taxed prompts that are refused, [layer, position, d].

    Raises:
        UsageError: none is refused.
    """
    if states.taxed is None:
        raise UsageError(explain("no taxed prompt is refused: there is no false-refusal vector.", ()))
    return states.taxed


def choose(task: EditTask, vectors: np.ndarray, positions: Sequence[int], *, on: str, most_divergence: float) -> Chosen:
    """The direction whose removal lowers the refusal score most, among those that leave harmless prompts alone.

    Args:
        task: its validation prompts choose.
        vectors: candidates, float64 [layer, position, d].
        positions: what the second axis stands for.
        on: "harm" or "taxed": whose refusals are to go.
        most_divergence: largest KL(aligned || edited) of the first token on harmless prompts; where no candidate stays
            below it, the one with the smallest divergence is taken.

    References:
        arXiv 2406.11717 (harm, .1) and arXiv 2410.03415 (false refusals, .2).
    """
    score, model = RefusalScore(task), task.pair.aligned.model
    rows = {
        "on": [
            r
            for name in ([task.harm] if on == "harm" else task.taxed)
            for r in prompt_rows(task, name, task.validation)
        ],
        "harmless": prompt_rows(task, task.harmless, task.validation),
    }
    rows = {kind: mine[:CHOSEN_ON] for kind, mine in rows.items()}
    plain = first_log_probabilities(model, rows["harmless"])
    tried: list[Chosen] = []
    for layer, place in _candidates(vectors, task.pair.aligned.anatomy.n_layers):
        vector = vectors[layer, place]
        if not np.isfinite(vector).all() or not np.linalg.norm(vector):
            continue
        with hooked(task.pair.aligned, vector):
            refused = float(score(first_log_probabilities(model, rows["on"])).mean())
            edited = first_log_probabilities(model, rows["harmless"])
        apart = float((plain.exp() * (plain - edited)).sum(1).clamp(min=0).mean())
        tried.append(Chosen(vector, layer, positions[place], refused, apart))
    if not tried:
        raise UsageError(explain("no direction was found.", (), "give harmful and harmless prompts that differ."))
    good = [one for one in tried if one.divergence <= most_divergence]
    return min(good, key=lambda one: one.score) if good else min(tried, key=lambda one: one.divergence)


def spared(w: np.ndarray, r: np.ndarray, dial: float) -> np.ndarray:
    """w less a share of its component along r, [..., d] each; dial 1 leaves it orthogonal to r."""
    along = (w * r).sum(-1, keepdims=True) / np.maximum((r * r).sum(-1, keepdims=True), 1e-30)
    return w - dial * along * r


@contextmanager
def hooked(loaded: Any, vector: np.ndarray, strength: float = 1.0) -> Iterator[Any]:
    """Yield a loaded model without a direction: block inputs, attention and MLP outputs, at every position."""
    unit = torch.as_tensor(vector / np.linalg.norm(vector))

    def without(x: torch.Tensor) -> torch.Tensor:
        u = unit.to(x.device, x.dtype)
        return x - strength * (x @ u)[..., None] * u

    parts = loaded.anatomy
    with ExitStack() as stack:
        for block in parts.blocks:
            stack.enter_context(replaced_input(block, without))
        for module in (*parts.attentions, *parts.mlps):
            stack.enter_context(replaced_output(module, without))
        yield loaded.model


def projected(pair: ModelPair, vectors: Mapping[str, np.ndarray], strength: Mapping[str, float]) -> Deltas:
    """What W <- W - strength * u u' W adds to each named matrix, in the shape that the checkpoint stores.

    Args:
        pair: the pair whose aligned model is edited.
        vectors: module name to direction [d].
        strength: module name to strength.
    """
    found = {}
    for name, vector in vectors.items():
        module = pair.aligned.model.get_submodule(name)
        weight = module.weight.detach().float()
        unit = torch.as_tensor(vector / np.linalg.norm(vector), dtype=torch.float32)
        if isinstance(module, torch.nn.Embedding):
            found[f"{name}.weight"] = -strength[name] * (weight @ unit)[:, None] * unit
        elif isinstance(module, torch.nn.Linear):
            found[f"{name}.weight"] = -strength[name] * unit[:, None] * (unit @ weight)
        else:
            found[f"{name}.weight"] = -strength[name] * (weight @ unit)[:, None] * unit
    return found


def writers(pair: ModelPair) -> list[str]:
    """Names of the matrices that write to the stream: attention out, MLP down, and an embedding that is not tied."""
    anatomy = pair.aligned.anatomy
    found = [role.name for role in anatomy.modules if role.role in ("o", "down")]
    embed = [role.name for role in anatomy.modules if role.kind == "embed" and role.role == "embed"]
    return found if anatomy.tied else [*embed, *found]


def direction_edit(
    task: EditTask, editor: str, label: str, vector: np.ndarray, *, strength: float = 1.0, free: int = 0,
    notes: tuple[str, ...] = (),
) -> Edit:  # fmt: skip
    """The checkpoint without a direction: of rank one in every matrix that writes to the stream."""
    names = writers(task.pair)
    deltas = partial(projected, task.pair, dict.fromkeys(names, vector), dict.fromkeys(names, strength))
    tied = ("the embedding is tied to the output head and is left alone",) if task.pair.aligned.anatomy.tied else ()
    return weight_edit(task.pair, editor, label, deltas, free=free or len(vector), notes=(*notes, *tied))


def direction_hooks_edit(
    pair: ModelPair, editor: str, label: str, tensors: Mapping[str, torch.Tensor], *, notes: tuple[str, ...] = ()
) -> Edit:
    """The same as hooks, which leave every weight as it is: `tensors` holds "vector" [d] and "strength" [1]."""
    vector, strength = tensors["vector"].double().numpy(), float(tensors["strength"])
    return Edit(
        editor, label, "steering", partial(hooked, pair.aligned, vector, strength), free=len(vector), tensors=dict(tensors),
        notes=notes,
    )  # fmt: skip


def prompt_rows(task: EditTask, name: str, part: Mapping[str, Suite]) -> list[Row]:
    """Rows of a suite's prompts without any answer."""
    asked = [_unanswered(item) for item in part[name].items if (item.prompt or "").strip()]
    if not asked:
        return []
    suite = Suite(name, tuple(asked))
    return task.prompting(suite).prompt_rows(suite)


def _unanswered(item: Item) -> Item:
    """An item without its choices, asked as it is with them."""
    return dataclasses.replace(item, choices=(), gold=None, also_right=())


def first_log_probabilities(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Log-probabilities of the first answer token after each prompt, float32 [rows, vocabulary]."""
    found: list[torch.Tensor | None] = [None] * len(rows)
    for batch in pack(rows, batch_tokens=4096):
        mine = [rows[i] for i in batch]
        logits = asked_logits(model, *pad(mine, 0), [(b, len(row.ids) - 1) for b, row in enumerate(mine)])
        for place, line in zip(batch, logits.log_softmax(-1).cpu(), strict=True):
            found[place] = line
    return torch.stack([line for line in found if line is not None])


def states_of(task: EditTask, rows: Sequence[Row], positions: Sequence[int] = (-1,)) -> np.ndarray:
    """The aligned model's states at the input of every block.

    Args:
        task: whose aligned model is read.
        rows: prompts.
        positions: one position, counted from the prompt's end.

    Returns:
        float64 [layers, prompts, d].
    """
    loaded = task.pair.aligned
    found = np.zeros((loaded.anatomy.n_layers, len(rows), loaded.anatomy.d_model))
    for batch, layer, states in _read(task, rows, positions):
        found[layer, batch] = states[0]
    return found


def _means(task: EditTask, rows: Sequence[Row], positions: Sequence[int]) -> np.ndarray:
    """Mean states at the input of every block, float64 [layer, position, d]."""
    loaded = task.pair.aligned
    total = np.zeros((loaded.anatomy.n_layers, len(positions), loaded.anatomy.d_model))
    for _, layer, states in _read(task, rows, positions):
        total[layer] += states.sum(1)
    return total / len(rows)


def _read(task: EditTask, rows: Sequence[Row], positions: Sequence[int]) -> Iterator[tuple[list[int], int, np.ndarray]]:
    """For every batch and block: the rows read, the block, and states float64 [positions, rows, d]."""
    loaded = task.pair.aligned
    for batch in pack(rows, batch_tokens=4096):
        mine = [rows[i] for i in batch]
        ids, mask, places = pad(mine, 0)
        ends = torch.tensor([len(row.ids) for row in mine])
        seen: dict[int, np.ndarray] = {}

        def keep(layer: int, ends: torch.Tensor = ends, seen: dict[int, np.ndarray] = seen) -> Any:
            def change(x: torch.Tensor) -> torch.Tensor:
                at = [x[torch.arange(len(x)), (ends + p).clamp(min=0)] for p in positions]
                seen[layer] = torch.stack(at).double().cpu().numpy()
                return x

            return change

        with ExitStack() as stack, torch.no_grad():
            for layer, block in enumerate(loaded.anatomy.blocks):
                stack.enter_context(replaced_input(block, keep(layer)))
            loaded.model.base_model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False)
        for layer, states in seen.items():
            yield batch, layer, states


def _shared_end(task: EditTask) -> int:
    """Tokens that every harmful prompt ends in: the template's own, at most `MOST_POSITIONS`; at least 1."""
    rows = prompt_rows(task, task.harm, task.train)[:8]
    count = 1
    while count < MOST_POSITIONS and len({row.ids[-count - 1 :] for row in rows if len(row.ids) > count}) == 1:
        count += 1
    return count


def _candidates(vectors: np.ndarray, n_layers: int, most: int = 24) -> list[tuple[int, int]]:
    """Layer and position of the candidates: all of them, or so many spread over the layers."""
    layers = [layer for layer in range(len(vectors)) if layer < LAST_LAYERS * n_layers]
    places = [(layer, place) for layer in layers for place in range(vectors.shape[1])]
    if len(places) <= most:
        return places
    picked = np.unique(np.round(np.linspace(0, len(places) - 1, most)).astype(int))
    return [places[i] for i in picked]

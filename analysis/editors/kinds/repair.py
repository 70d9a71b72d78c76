"""Editors that add weights: a small adapter trained on top of the aligned model (or of the base), and how it is kept.

An adapter adds `scale * B A` of a stated rank to every linear module of every block. B starts at 0, so training starts
at the model itself; what is written is A and B alone, in the files that PEFT reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from taxlens.activations.items.sampling import at_most
from taxlens.analysis.editors.edit import Edit, added, relative_energy
from taxlens.analysis.editors.kinds.optimise import Adam, Schedule, kept_state, staged
from taxlens.analysis.editors.objective import Objective, Prices
from taxlens.analysis.editors.task import EditTask
from taxlens.core.errors import one_of
from taxlens.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

RANK, SCALE = 8, 2.0
"""Rank of an adapter, and what its product is multiplied by (alpha over rank)."""


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """One way of training an adapter.

    Args:
        prices: terms of the loss but for the hinge on harm.
        steps: of the training.
        harm: price of the hinge on refusals of harm.
        start: "aligned" or "base", what the adapter is put on.
        frozen: share of the blocks, from the bottom, that get no adapter.
        rate: step size.
        items: most training items a suite that are ever seen; None: all.
    """

    prices: Prices
    steps: int = 30
    harm: float = 8.0
    start: str = "aligned"
    frozen: float = 0.0
    rate: float = 1e-3
    items: int | None = None

    def schedule(self, tries: int) -> Schedule:
        """The steps cut into as many stages as settings may be tried: each is stopped on validation by itself."""
        ends = [round(k * self.steps / tries) for k in range(tries + 1)]
        stages = tuple((b - a, self.harm) for a, b in itertools.pairwise(ends) if b > a)
        return Schedule(stages=stages, rate=self.rate)


RECIPES: Mapping[str, AdapterRecipe] = MappingProxyType({
    "repair": AdapterRecipe(Prices(kl=1.0, harm_nll=1 / 3)),
    "contrast": AdapterRecipe(Prices(), steps=20, harm=5.0),
    "relearn": AdapterRecipe(Prices(choice=0, harmless_choice=0, nll=1.0), steps=10, harm=0),
    "relearn_frozen": AdapterRecipe(Prices(choice=0, harmless_choice=0, nll=1.0), steps=10, harm=0, frozen=0.2),
    "relearn_unrelated": AdapterRecipe(Prices(choice=0, harmless_choice=0, harmless_nll=1.0), steps=10, harm=0),
    "replay": AdapterRecipe(Prices(choice=0, harmless_choice=0, nll=1.0, harmless_nll=0.5, harm_nll=0.5), harm=0),
    "relearn_kl": AdapterRecipe(Prices(choice=0, harmless_choice=0, nll=1.0, hold=1.0), harm=0),
    "realign_10": AdapterRecipe(
        Prices(choice=0, harmless_choice=0, harm_nll=1.0), steps=10, harm=0, start="base", items=10
    ),
})  # fmt: skip
"""Adapters by editor."""


@dataclass(slots=True, eq=False)
class Adapter:
    """Low-rank additions to linear modules.

    Args:
        scale: what every product B A is multiplied by.
        a, b: module name to A [rank, in] and B [out, rank], float32.
    """

    scale: float
    a: dict[str, torch.Tensor] = field(default_factory=dict)
    b: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def numbers(self) -> int:
        """Free numbers in it."""
        return sum(tensor.numel() for side in (self.a, self.b) for tensor in side.values())

    def deltas(self, transposed: Mapping[str, bool]) -> dict[str, torch.Tensor]:
        """Parameter name to what it adds, in the shape that the checkpoint stores."""
        found = {}
        for name in self.a:
            whole = self.scale * (self.b[name].detach() @ self.a[name].detach())
            found[f"{name}.weight"] = whole.T.contiguous() if transposed[name] else whole
        return found


def adapter_editor(
    task: EditTask, editor: str, *, tries: int = 3, rank: int = RANK, recipe: AdapterRecipe | None = None,
    progress: Progress = SILENT,
) -> Iterator[Edit]:  # fmt: skip
    """Train an adapter by a recipe; candidates are what validation likes best in each stage.

    Args:
        task: items and roles.
        editor: one of `RECIPES`.
        tries: most candidates.
        rank: of the adapter.
        recipe: another recipe under that name.
        progress: told of every step.

    References:
        LoRA: Hu et al. 2021. Relearning with frozen lower layers and on unrelated text: arXiv 2501.13453.
    """
    if recipe is None:
        one_of(editor, list(RECIPES), what="adapter recipe")
        recipe = RECIPES[editor]
    objective = Objective(_few(task, recipe.items))
    loaded = task.pair.aligned if recipe.start == "aligned" else task.pair.base
    names = _modules(loaded, recipe.frozen)
    adapter = fresh(loaded.model, names, rank=rank, seed=task.seed)
    trained = [adapter.a[name] for name in names] + [adapter.b[name] for name in names]
    optimisers = [Adam(tensor) for tensor in trained]
    schedule = recipe.schedule(tries)

    def take(step: int, chosen: dict[str, list[int]], prices: Prices) -> None:
        objective.read_ends(chosen, prices)
        with side_paths(loaded.model, adapter):
            objective.backward(loaded.model, chosen, prices)
        clip = min(1.0, 1 / (float(torch.stack([t.grad.norm() for t in trained if t.grad is not None]).norm()) + 1e-12))
        for tensor, optimiser in zip(trained, optimisers, strict=True):
            if tensor.grad is not None:
                tensor.grad.mul_(clip)
                optimiser.step(schedule.rate_at(step))

    def candidate(label: str) -> Edit:
        now = Adapter(
            adapter.scale, *({k: v.detach().clone() for k, v in side.items()} for side in (adapter.a, adapter.b))
        )
        return adapter_edit(task.pair, editor, label, now, start=recipe.start)

    stages = staged(
        objective, schedule, editor, take, kept_state(*trained), candidate, tries, progress, prices=recipe.prices
    )
    for number, edit in enumerate(stages, start=1):
        yield adapter_edit(task.pair, editor, f"stage {number}", adapter_of(edit.tensors), start=recipe.start)


def adapter_edit(pair: ModelPair, editor: str, label: str, adapter: Adapter, *, start: str = "aligned") -> Edit:
    """The edit that an adapter makes of the aligned model, or of the base."""
    loaded = pair.aligned if start == "aligned" else pair.base
    transposed = _transposed(loaded.model, adapter.a)

    @contextmanager
    def opened() -> Iterator[Any]:
        with added(loaded.model, adapter.deltas(transposed)) as model:
            yield model

    tensors = {
        f"{name}.lora_{side}": t for side, own in (("A", adapter.a), ("B", adapter.b)) for name, t in own.items()
    }
    notes = () if start == "aligned" else ("the adapter is put on the base, not on the aligned model",)
    energy = relative_energy(pair, adapter.deltas(transposed)) if start == "aligned" else float("nan")
    return Edit(
        editor, label, "adapter", opened, free=adapter.numbers, tensors=tensors | {"scale": torch.tensor(adapter.scale)},
        energy=energy, notes=notes, on=start,
    )  # fmt: skip


@contextmanager
def side_paths(model: Any, adapter: Adapter) -> Iterator[Any]:
    """Yield the model with the adapter beside its linear modules, differentiable in A and B."""
    handles = []

    def beside(name: str) -> Any:
        def hook(_layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            x = inputs[0]
            a, b = adapter.a[name].to(x.device, x.dtype), adapter.b[name].to(x.device, x.dtype)
            return output + adapter.scale * ((x @ a.T) @ b.T)

        return hook

    try:
        for name in adapter.a:
            handles.append(model.get_submodule(name).register_forward_hook(beside(name)))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def fresh(model: Any, names: Sequence[str], *, rank: int = RANK, scale: float = SCALE, seed: int = 0) -> Adapter:
    """An adapter that changes nothing yet: A is drawn (uniform, as LoRA does), B is 0."""
    generator = torch.Generator().manual_seed(seed)
    adapter = Adapter(scale)
    for name, transposed in _transposed(model, names).items():
        weight = model.get_submodule(name).weight
        out, into = tuple(weight.shape)[::-1] if transposed else tuple(weight.shape)
        bound = into**-0.5
        drawn = (2 * torch.rand(min(rank, out, into), into, generator=generator) - 1) * bound
        adapter.a[name] = drawn.requires_grad_(True)
        adapter.b[name] = torch.zeros(out, len(drawn)).requires_grad_(True)
    return adapter


def adapter_of(tensors: Mapping[str, torch.Tensor]) -> Adapter:
    """The adapter whose matrices an edit holds ("NAME.lora_A", "NAME.lora_B", "scale")."""
    sides = {side: {k.removesuffix(f".lora_{side}"): t for k, t in tensors.items() if k.endswith(f".lora_{side}")}
             for side in "AB"}  # fmt: skip
    return Adapter(float(tensors["scale"]), sides["A"], sides["B"])


def _transposed(model: Any, names: Sequence[str] | Mapping[str, Any]) -> dict[str, bool]:
    """Whether each module stores its weight as [in, out]."""
    return {name: not isinstance(model.get_submodule(name), nn.Linear) for name in names}


def _modules(loaded: Any, frozen: float) -> list[str]:
    """Names of the linear modules of all blocks but the lowest share of them: at least one is left out, and one left."""
    blocks = loaded.anatomy.n_layers
    first = min(max(1, int(frozen * blocks + 1e-9)), blocks - 1) if frozen else 0
    found = []
    for role in loaded.anatomy.modules:
        inside = role.layer is not None and role.layer >= first and role.kind in ("attn", "mlp")
        weight = getattr(loaded.model.get_submodule(role.name), "weight", None) if inside else None
        if weight is not None and weight.ndim == 2 and role.role not in ("router", "experts"):
            found.append(role.name)
    return found


def _few(task: EditTask, items: int | None) -> EditTask:
    if items is None:
        return task
    few = {name: at_most(suite, items, seed=task.seed) for name, suite in task.train.items()}
    return replace(task, train=few)

"""What an editor hands back: a model that can be opened, measured and written, and what it took to make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.weight_edits import puts_back

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

FORMS = ("units", "adapter", "weights", "steering", "training")
"""How an edit is kept: coefficients of units, a small adapter, whole weights, hooks, or a model trained anew."""

Deltas = Mapping[str, torch.Tensor]
"""Parameter name -> what is added to the aligned model's parameter, in its own shape."""


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One edited model.

    Args:
        editor: name of the editor in the registry.
        label: which of the editor's settings this is, unique among them ("keep 105 %").
        form: one of `FORMS`.
        opened: opens the model for the length of a block and puts everything back.
        free: numbers that were free to choose.
        undo: form units: unit name to how far it is undone, outside 0..1 where the update is extrapolated.
        level: of those units.
        tensors: what the form is written from: adapter matrices, directions.
        on: "aligned" or "base": the model that an adapter is put on.
        energy: squared norm of the change from the aligned model over that of the whole update; nan where not had.
        notes: what a reader of the row must know.
        seconds: processor seconds that it took, where it was made elsewhere; None: whoever fits it counts.
    """

    editor: str
    label: str
    form: str
    opened: Callable[[], AbstractContextManager[Any]]
    free: int = 0
    undo: Mapping[str, float] = field(default_factory=dict)
    level: str = ""
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    on: str = "aligned"
    energy: float = float("nan")
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The editor and its setting."""
        return f"{self.editor} ({self.label})" if self.label else self.editor


def unit_edit(
    pair: ModelPair, editor: str, label: str, undo: Mapping[str, float], *, energy: float, free: int,
    level: str | None = None, notes: tuple[str, ...] = (),
) -> Edit:  # fmt: skip
    """An edit that gives units of the update, all of one level, coefficients."""
    kept = {name: float(a) for name, a in undo.items() if a}
    return Edit(
        editor, label, "units", lambda: mixture(pair, kept, level=level), free=free, undo=kept, level=level or "",
        energy=energy, notes=notes,
    )  # fmt: skip


def weight_edit(
    pair: ModelPair, editor: str, label: str, deltas: Callable[[], Deltas], *, free: int = 0,
    notes: tuple[str, ...] = (), energy: float = float("nan"),
) -> Edit:  # fmt: skip
    """An edit that adds something to the aligned model's parameters; `deltas` is called each time it is opened."""

    @contextmanager
    def opened() -> Iterator[Any]:
        with added(pair.aligned.model, deltas()) as model:
            yield model

    return Edit(editor, label, "weights", opened, free=free, notes=notes, energy=energy)


@contextmanager
def added(model: Any, deltas: Deltas) -> Iterator[Any]:
    """Yield the model with something added to its parameters; leaving puts every tensor back bit for bit."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    kept = {name: parameters[name].detach().clone() for name in deltas}
    with puts_back(model):
        try:
            with torch.no_grad():
                for name, delta in deltas.items():
                    wide = torch.float64 if kept[name].dtype == torch.float64 else torch.float32
                    whole = kept[name].to(wide) + delta.to(kept[name].device, wide)
                    parameters[name].copy_(whole.to(kept[name].dtype))
            yield model
        finally:
            with torch.no_grad():
                for name, tensor in kept.items():
                    parameters[name].copy_(tensor)


def relative_energy(pair: ModelPair, deltas: Deltas) -> float:
    """Squared norm of what is added over that of the whole update from base to aligned."""
    base, aligned = (dict(m.model.named_parameters()) for m in (pair.base, pair.aligned))
    whole = sum(float((aligned[name].double() - base[name].double()).square().sum()) for name in base)
    mine = sum(float(delta.double().square().sum()) for delta in deltas.values())
    return mine / whole if whole else float("nan")

"""Which experts are chosen, as something that changes along the path: a row of its own, and a path without jumps.

A router sends each token to its k best experts. Along the path the k best change, and the score jumps where they do: no
quadrature of derivatives sees a jump. So the path moves weights and choice together. With S0 and S1 the experts that base
and aligned choose for a token of this very batch, every router on the way gives

    w(t) = (1 - a) w(z(t); S0) + a w(z(t); S1),    a = t,

w(z; S) being the router's own weights of its logits z when S is chosen. At t = 0 it is base and at t = 1 aligned; in between
nothing is chosen any more and the score is smooth. The derivative by a, token by token, is the row `L.selection`.
Aumann and Shapley's account of the game whose players are changes of weights and changes of choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from taxlens.analysis.weights.units import Difference, Unit

if TYPE_CHECKING:
    from taxlens.analysis.path.contraction import Contraction
    from taxlens.analysis.weights.path_weights import Walk

Tensor = torch.Tensor
Key = tuple[Any, ...]


_COMPARISONS = ("gt", "ge", "lt", "le", "__gt__", "__ge__", "__lt__", "__le__")


class _Decisions(TorchFunctionMode):
    """Sees what a router decides, or puts other decisions in their place.

    Most routers take the k best experts: their last call of topk is the choice, and the values are gathered where it points.
    Routers without one (Phi-3.5-MoE: the best, a threshold, the best of the others, a threshold) decide in steps: each largest
    value that is looked for and each comparison is one.
    """

    def __init__(self, experts: int, *, chosen: Tensor | None = None, plan: ChoiceSteps | None = None) -> None:
        super().__init__()
        self.experts, self.given, self.plan = experts, chosen, plan
        self.calls = 0
        self.best: Tensor | None = None
        self.steps: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name == "topk" and args[0].shape[-1] == self.experts:
            self.calls += 1
            if self.given is not None and self.plan is not None and self.calls == self.plan.call:
                return torch.return_types.topk((args[0].gather(-1, self.given), self.given))
            found = func(*args, **kwargs)
            self.best = found[1]
            return found
        if name == "max" and ("dim" in kwargs or (len(args) > 1 and isinstance(args[1], int))):
            found = func(*args, **kwargs)
            where = self._step(found[1])
            if where is found[1]:
                return found
            dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            kept = found[1].dim() == args[0].dim()
            values = args[0].gather(dim, where if kept else where.unsqueeze(dim))
            return torch.return_types.max((values if kept else values.squeeze(dim), where))
        found = func(*args, **kwargs)
        return self._step(found) if name in _COMPARISONS or name == "argmax" else found

    def _step(self, found: Tensor) -> Tensor:
        """A decision as it is, noted; or the one that is given for this step."""
        number = len(self.steps)
        self.steps.append(found.detach())
        if self.given is None or self.plan is None or self.plan.call or number >= len(self.plan.widths):
            return found
        start = sum(self.plan.widths[:number])
        given = self.given[:, start : start + self.plan.widths[number]]
        return given.reshape(found.shape).to(found.dtype)


@dataclass(frozen=True, slots=True)
class ChoiceSteps:
    """How a router decides.

    Args:
        call: which of its calls of topk, counted from 1, chooses the experts; 0: it takes steps.
        widths: numbers that each step decides for a token; empty: it decides in a way that is not seen.
    """

    call: int = 0
    widths: tuple[int, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether the choice can be held fixed."""
        return bool(self.call or self.widths)

    def same(self, one: Tensor, two: Tensor) -> bool:
        """Whether two choices [tokens, n] are the same for every token."""
        return not bool(self.apart(one, two).any())

    def apart(self, one: Tensor, two: Tensor) -> Tensor:
        """For which tokens two choices differ, bool [tokens]; the order of experts makes no difference."""
        if self.widths:
            return (one != two).any(-1)
        return (one.sort(-1)[0] != two.sort(-1)[0]).any(-1)


@dataclass(slots=True, eq=False)
class Router:
    """One router of the walked model.

    Args:
        layer: its block.
        module: the module.
        own: its own forward.
        plan: how it decides, as its last plain pass showed.
    """

    layer: int
    module: Any
    own: Callable[..., Any]
    plan: ChoiceSteps = ChoiceSteps()

    @property
    def unit(self) -> str:
        """Name of its row."""
        return f"{self.layer}.selection"

    def plain(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Tensor | None]:
        """What the router gives, and its choice, [tokens, n]: the experts, or what it decided step by step.

        None where it chooses in a way that is not seen.
        """
        with _Decisions(len(self.module.weight)) as seen:
            output = self.own(*args, **kwargs)
        if seen.best is not None:
            self.plan = ChoiceSteps(call=seen.calls)
            return output, seen.best
        flat = [step.reshape(len(step), -1).long() for step in seen.steps]
        self.plan = ChoiceSteps(widths=tuple(step.shape[-1] for step in flat))
        return output, torch.cat(flat, dim=-1) if flat else None

    def forced(self, chosen: Tensor, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """What it would give if this were its choice."""
        with _Decisions(len(self.module.weight), chosen=chosen, plan=self.plan):
            return self.own(*args, **kwargs)


@dataclass(slots=True, eq=False)
class ExpertSelection:
    """The choices of experts at both ends of a path, batch by batch, and routers that go from one to the other.

    Args:
        path: the walked pair.
        contraction: where derivatives are tallied.
        routers: the walked model's.
        active: whether routers mix the two choices; else they are only counted.
    """

    path: Walk
    contraction: Contraction
    routers: list[Router]
    active: bool = True
    key: Key = ()
    ends: dict[tuple[float, Key, int], Tensor] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[None]:
        """While open, passes at both ends are noted, and passes between them mix what was noted."""
        handles = [self.path.model.register_forward_pre_hook(self._see, with_kwargs=True)]
        for router in self.routers:
            router.module.forward = self._forward(router)
        try:
            yield
        finally:
            for router in self.routers:
                del router.module.forward
            for handle in handles:
                handle.remove()
            self.ends.clear()

    def changed(self) -> tuple[int, int]:
        """(token-layers whose choice differs at the ends, token-layers seen); padding is counted too."""
        apart = total = 0
        plans = {router.layer: router.plan for router in self.routers}
        for (t, key, layer), start in self.ends.items():
            if t == 0.0 and (end := self.ends.get((1.0, key, layer))) is not None:
                apart += int(plans[layer].apart(start, end).sum())
                total += len(start)
        return apart, total

    def warning(self) -> str:
        """Why more nodes cannot close the account, where choices differ and are not mixed; else blank."""
        apart, total = self.changed()
        mixed = self.active and all(router.plan.seen for router in self.routers)
        if mixed or not apart:
            return ""
        return f"experts change along the path in {apart} of {total} token-layers: more nodes cannot close this"

    def _see(self, _model: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        parts = [ids] if mask is None else [ids, mask]
        self.key = tuple((tuple(part.shape), part.detach().cpu().numpy().tobytes()) for part in parts)

    def _forward(self, router: Router) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            t = float(self.path.t)
            ends = [self.ends.get((end, self.key, router.layer)) for end in (0.0, 1.0)]
            # a module's derivative is taken inside the pass that is counted, without gradients: it reads the same mixture
            counted = self.contraction.batch is not None and (torch.is_grad_enabled() or self.contraction.busy)
            inside = (counted or t not in (0.0, 1.0)) and all(end is not None for end in ends)
            if self.active and inside and router.plan.seen:
                return self._mixed(router, ends, t, args, kwargs, counted=counted)
            output, chosen = router.plain(args, kwargs)
            if t in (0.0, 1.0) and not counted:
                chosen = _indices(output) if chosen is None else chosen
                if chosen is not None:
                    self.ends[t, self.key, router.layer] = chosen.detach()
            return output

        return forward

    def _mixed(
        self, router: Router, ends: list[Any], t: float, args: tuple, kwargs: dict[str, Any], *, counted: bool
    ) -> tuple[Any, ...]:
        if router.plan.same(*ends):
            return router.forced(ends[0], args, kwargs)
        start, end = (router.forced(chosen, args, kwargs) for chosen in ends)
        first = next(one for one in start if isinstance(one, Tensor) and one.is_floating_point())
        a = torch.full((len(first), 1), t, dtype=first.dtype, device=first.device)
        if counted and not self.contraction.busy:
            a.requires_grad_(True)
            a.register_hook(lambda gradient: self.contraction.add(router.unit, gradient))
        return _between(start, end, a)


def _between(start: tuple[Any, ...], end: tuple[Any, ...], a: Tensor) -> tuple[Any, ...]:
    """A router's output between two choices: both choices' experts, each with its share of the weights.

    A router that gives a weight to every expert (zero to those that are not chosen) has them averaged.
    """
    indices = _indices(start)
    out = []
    for one, two in zip(start, end, strict=True):
        if not isinstance(one, Tensor):
            out.append(one)
        elif indices is None:
            out.append((1 - a) * one + a * two if one.is_floating_point() else one)
        elif not one.is_floating_point():
            out.append(torch.cat([one, two], dim=-1))
        elif one.shape == indices.shape:
            out.append(torch.cat([(1 - a) * one, a * two], dim=-1))
        else:
            out.append(one)  # the logits, which no choice changes
    return tuple(out)


def _indices(output: Any) -> Tensor | None:
    """The experts' numbers in a router's output, [tokens, k]; None where it gives none."""
    parts = output if isinstance(output, tuple) else (output,)
    return next((one for one in parts if isinstance(one, Tensor) and not one.is_floating_point()), None)


def selection_units(difference: Difference) -> tuple[Unit, ...]:
    """A row for each layer with a router; they hold no weights."""
    layers = [role.layer for role in difference.anatomy.modules if role.role == "router"]
    return tuple(Unit(f"{layer}.selection", f"{layer}.selection", int(layer or 0), "selection", ()) for layer in layers)


def selection_of(path: Walk, contraction: Contraction, *, active: bool) -> ExpertSelection | None:
    """The choice of experts along a path; None for a model without routers."""
    roles = [role for role in contraction.difference.anatomy.modules if role.role == "router"]
    if not roles:
        return None
    modules = [path.model.get_submodule(role.name) for role in roles]
    routers = [
        Router(int(role.layer or 0), module, module.forward) for role, module in zip(roles, modules, strict=True)
    ]
    return ExpertSelection(path, contraction, routers, active)

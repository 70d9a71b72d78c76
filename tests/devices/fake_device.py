"""A GPU that is not there: tensors with real data on the CPU that say they are on cuda:0, cuda:1, ...

What a GPU refuses is refused here: an operation on tensors of two devices, `.numpy()` of a device tensor. What makes
the host wait for a GPU is counted, by the line of the library that asked: a copy to the host (unless it goes to
pinned memory without blocking), `.item()`, an index by a mask, an event waited for. Index tensors may stay on the
CPU, as on a GPU (an upload is counted). Several devices with the hooks of `spread` do what accelerate does for
`device: balanced`.

Example:
    >>> with devices(2) as traffic:                                                    # doctest: +SKIP
    ...     pair = spread(pair, 2)
    ...     pair.tax(suite)
    ...     traffic.waits
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
CPU = torch.device("cpu")
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}  # fmt: skip
WAITING = {
    aten._local_scalar_dense.default: "item", aten.is_nonzero.default: "item", aten.nonzero.default: "nonzero",
    aten.masked_select.default: "nonzero", aten.equal.default: "equal", aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
}  # fmt: skip
FOLDERS = ("core", "activations", "probes", "analysis")


class Traffic:
    """What passed between host and devices, by kind and by line.

    Kinds: "download" (blocking copy to the host), "item", "nonzero", "equal", "unique", "tolist", "event" make the host
    wait; "upload" (blocking copy to a device) waits for that device's queue only; "upload_async" and "download_async"
    do not wait; "across" goes from device to device.
    """

    WAITS = ("download", "item", "nonzero", "equal", "unique", "tolist", "event")

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.lines: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[str] = Counter()

    def note(self, kind: str, size: int = 0) -> None:
        """Count one event of a kind."""
        self.kinds[kind] += 1
        self.lines[kind, _line()] += 1
        self.bytes[kind] += size

    @property
    def waits(self) -> int:
        """How often the host waited for a device."""
        return sum(self.kinds[kind] for kind in self.WAITS)

    def where(self) -> str:
        """The lines that waited, most often first."""
        found = [(n, kind, line) for (kind, line), n in self.lines.items() if kind in self.WAITS]
        return "\n".join(f"{n:5d} {kind:9s} {line}" for n, kind, line in sorted(found, reverse=True))

    def clear(self) -> None:
        """Start counting anew."""
        self.kinds.clear()
        self.lines.clear()
        self.bytes.clear()


TRAFFIC = Traffic()
_PINNED: set[int] = set()


def _line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/tests/" not in name and "site-packages" not in name:
            for folder in FOLDERS:
                if (at := name.rfind(f"/{folder}/")) >= 0:
                    return f"{name[at + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


class FakeTensor(torch.Tensor):
    """A tensor whose data lie on the CPU (`held`) and which says that it is on `place`."""

    held: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: torch.Tensor, place: torch.device | str) -> FakeTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device="cpu", requires_grad=False,
        )  # fmt: skip
        made.held, made.place = held, torch.device(place)
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"FakeTensor({self.held}, {self.place})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = FakeTensor(self.held.detach().clone(), self.place)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=self.requires_grad)
        memo[id(self)] = made
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


def place_of(x: torch.Tensor) -> torch.device:
    """The device that a tensor says it is on."""
    return x.place if isinstance(x, FakeTensor) else CPU


def _dispatched(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    fakes = [t for t in tensors if isinstance(t, FakeTensor)]
    _refuse_mixing(func, args, tensors, fakes)
    if func is aten.copy_.default and place_of(args[0]) != place_of(args[1]):
        quiet = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        _note_copy(args[1], place_of(args[0]), quiet=quiet, into=args[0])
    if func in WAITING and fakes:
        TRAFFIC.note(WAITING[func])
    place = place_of(args[0]) if func in COPIES else next((t.place for t in fakes), CPU)
    plain, named = tree_map(_held, (args, kwargs))
    named.pop("pin_memory", None)
    if "device" in named:
        named["device"] = CPU
    out = func(*plain, **named)
    written = [n for n, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    if written and not isinstance(out, tuple | list):
        n = written[0]
        return args[n] if n < len(args) else kwargs[func._schema.arguments[n].name]
    if place == CPU:
        return out
    return tree_map(lambda t: FakeTensor(t, place) if type(t) is torch.Tensor else t, out)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, FakeTensor) else x


def _refuse_mixing(func: Any, args: Any, tensors: list[torch.Tensor], fakes: list[FakeTensor]) -> None:
    if not fakes or func in COPIES:
        return
    if func in INDEXING:
        home = place_of(args[0])
        for index in tree_flatten(args[1])[0]:
            if not isinstance(index, torch.Tensor):
                continue
            if isinstance(index, FakeTensor) and index.place != home:
                raise RuntimeError(f"an index on {index.place} for a tensor on {home}, at {_line()}")
            if index.dtype == torch.bool and home != CPU:
                TRAFFIC.note("nonzero")
            if not isinstance(index, FakeTensor) and home != CPU:
                TRAFFIC.note("upload", index.numel() * index.element_size())
        return
    places = {t.place for t in fakes}
    alone = [t for t in tensors if not isinstance(t, FakeTensor) and t.dim() > 0]
    if len(places) > 1 or alone:
        names = sorted(map(str, places | ({CPU} if alone else set())))
        raise RuntimeError(f"{func} on tensors of {' and '.join(names)}, at {_line()}")


def _note_copy(source: torch.Tensor, target: torch.device, *, quiet: bool, into: torch.Tensor | None = None) -> None:
    size = source.numel() * source.element_size()
    if place_of(source) == CPU:
        TRAFFIC.note("upload_async" if quiet else "upload", size)
    elif target == CPU:
        pinned = into is not None and _held(into).untyped_storage().data_ptr() in _PINNED
        TRAFFIC.note("download_async" if quiet and pinned else "download", size)
    else:
        TRAFFIC.note("across", size)


def _moved(x: torch.Tensor, place: torch.device, dtype: torch.dtype | None, *, quiet: bool) -> torch.Tensor:
    if x.requires_grad and torch.is_grad_enabled():
        return _Move.apply(x, place, dtype, quiet)
    return _move(x, place, dtype, quiet)


def _move(x: torch.Tensor, place: torch.device, dtype: torch.dtype | None, quiet: bool) -> torch.Tensor:
    _note_copy(x, place, quiet=quiet)
    copied = _held(x).detach().clone()
    copied = copied if dtype is None else copied.to(dtype)
    return copied if place == CPU else FakeTensor(copied, place)


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, place: torch.device, dtype: torch.dtype | None, quiet: bool) -> Any:
        ctx.home, ctx.kind = place_of(x), x.dtype
        return _move(x, place, dtype, quiet)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return _move(gradient, ctx.home, ctx.kind, False), None, None, None


def _named(place: Any) -> torch.device:
    place = torch.device(f"cuda:{place}" if isinstance(place, int) else place)
    return torch.device("cuda:0") if place.type == "cuda" and place.index is None else place


def _to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Tensor.to with a device: (where, dtype, without blocking); None where no device is named."""
    place, dtype = kwargs.get("device"), kwargs.get("dtype")
    quiet = bool(kwargs.get("non_blocking"))
    for one in args[1:]:
        if isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, torch.Tensor):
            place, dtype = place_of(one), one.dtype
        elif isinstance(one, str | torch.device | int) and not isinstance(one, bool):
            place = one
    return None if place is None else (_named(place), dtype, quiet)


T = torch.Tensor
BACKWARDS = (torch.autograd.backward, T.backward)
_FAKE_ONLY = {
    T.tolist: lambda x: (TRAFFIC.note("tolist"), x.held.tolist())[1],
    T.data_ptr: lambda x: x.held.data_ptr(),
    T.data.__get__: lambda x: x.detach(),
}


def _refused(x: FakeTensor) -> Any:
    raise TypeError(f"can't convert a tensor on {x.place} to numpy, at {_line()}")


def _backward(roots: Any, gradients: Any = None, retain_graph: bool | None = None, *_more: Any, **more: Any) -> None:
    """autograd.backward itself, so that hooks on gradients see the tensors' own functions."""
    roots = (roots,) if isinstance(roots, torch.Tensor) else tuple(roots)
    given = more.get("grad_tensors", more.get("gradient", gradients))
    given = [None] * len(roots) if given is None else given if isinstance(given, list | tuple) else [given]
    seeds = tuple(torch.ones_like(r) if g is None else g for r, g in zip(roots, given, strict=True))
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(roots, seeds, bool(retain_graph), False, (), allow_unreachable=True, accumulate_grad=True)


def _called(func: Any, args: Any, kwargs: Any) -> Any:
    if func in BACKWARDS:
        return _backward(*args, **{k: v for k, v in kwargs.items() if k not in ("create_graph", "inputs")})
    x = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if x is not None:
        if func == T.device.__get__:
            return place_of(x)
        if func == T.is_cuda.__get__:
            return place_of(x).type == "cuda"
        if func is T.to and (wanted := _to(args, kwargs)) is not None:
            place, dtype, quiet = wanted
            if place != place_of(x):
                return _moved(x, place, dtype, quiet=quiet)
            if dtype is None or dtype == x.dtype:
                return x
            args, kwargs = (x,), {"dtype": dtype}
        if func is T.cuda:
            return x if place_of(x) != CPU else _moved(x, _named("cuda"), None, quiet=False)
    if isinstance(x, FakeTensor):
        if func is T.cpu:
            return _moved(x, CPU, None, quiet=False)
        if func in (T.numpy, T.__array__):
            _refused(x)
        if func == T.data.__set__:
            x.held = _held(args[1])
            return None
        if func in _FAKE_ONLY:
            return _FAKE_ONLY[func](x)
        if func is T.view and len(args) == 2 and isinstance(args[1], torch.dtype):
            return FakeTensor(x.held.view(args[1]), x.place)
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


class _Factories(TorchFunctionMode):
    """Calls that make a tensor on a fake device, or move a plain tensor to one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in BACKWARDS:
            with _Factories():  # a mode is off while it handles a call; hooks on gradients need it
                return _called(func, args, kwargs)
        if kwargs.pop("pin_memory", None):
            made = func(*args, **kwargs)
            _PINNED.add(made.untyped_storage().data_ptr())
            return made
        place = kwargs.get("device")
        if func in (T.to, T.cuda) and args and not isinstance(args[0], FakeTensor):
            return _called(func, args, kwargs)
        if place is None or func is T.to:
            return func(*args, **kwargs)
        place = _named(place)
        if place.type == "cuda":
            made = func(*tree_map(_held, args), **(kwargs | {"device": CPU}))
            if getattr(func, "__name__", "") in ("tensor", "as_tensor"):
                TRAFFIC.note("upload", made.numel() * made.element_size())
            return FakeTensor(made, place)
        if place == CPU and args and isinstance(args[0], FakeTensor):
            return func(args[0].held, *args[1:], **kwargs)
        return func(*args, **kwargs)


class _Event:
    def record(self, *_stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        TRAFFIC.note("event")


@contextmanager
def devices(count: int = 1) -> Iterator[Traffic]:
    """While open there are `count` fake devices; yields what passes between them and the host."""
    put: dict[str, Any] = {
        "Event": _Event, "current_stream": lambda *_a: None, "device_count": lambda: count, "empty_cache": lambda: None,
        "get_rng_state": lambda *_a: None, "set_rng_state": lambda *_a: None,
    }  # fmt: skip
    before = {name: getattr(torch.cuda, name) for name in put}
    for name, value in put.items():
        setattr(torch.cuda, name, value)
    TRAFFIC.clear()
    try:
        with _Factories():
            yield TRAFFIC
    finally:
        for name, value in before.items():
            setattr(torch.cuda, name, value)
        _PINNED.clear()


def spread(pair: Any, count: int = 1, *, shift: int = 0) -> Any:
    """A pair whose models lie over `count` fake devices, layer after layer; the aligned model's map shifted by `shift`."""
    base = _spread_model(pair.base, count, 0)
    aligned = _spread_model(pair.aligned, count, shift)
    return dataclasses.replace(pair, base=base, aligned=aligned)


def _spread_model(loaded: Any, count: int, shift: int) -> Any:
    model = copy.deepcopy(loaded.model)
    anatomy = type(loaded)(**(_fields(loaded) | {"model": model})).anatomy
    homes: dict[str, torch.device] = {}
    for name, _ in model.named_modules():
        homes[name] = torch.device("cuda:0")
    blocks = {id(block): n for n, block in enumerate(anatomy.blocks)}
    for name, module in model.named_modules():
        if id(module) in blocks:
            number = min(count - 1, max(0, blocks[id(module)] * count // anatomy.n_layers + shift))
            homes |= {inner: torch.device(f"cuda:{number}") for inner in homes if f"{inner}.".startswith(f"{name}.")}
    last = torch.device(f"cuda:{count - 1}")
    final = anatomy.role("final_norm").name
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    homes |= {final: last, head: homes[_embed_name(model)] if anatomy.tied else last}
    _put(model, homes)
    entrances = [*anatomy.blocks, model.get_submodule(final), model.get_submodule(head)]
    for module in entrances:
        module.register_forward_pre_hook(_aligner(next(module.parameters()).device), with_kwargs=True)
    model.register_forward_hook(_homecoming)
    return type(loaded)(**(_fields(loaded) | {"model": model, "device": torch.device("cuda:0")}))


def _fields(loaded: Any) -> dict[str, Any]:
    return {field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)}


def _embed_name(model: Any) -> str:
    return next(name for name, module in model.named_modules() if module is model.get_input_embeddings())


def _put(model: Any, homes: dict[str, torch.device]) -> None:
    made: dict[int, torch.nn.Parameter] = {}
    for name, module in model.named_modules():
        for key, p in list(module._parameters.items()):
            if p is not None:
                if id(p) not in made:
                    made[id(p)] = torch.nn.Parameter(FakeTensor(p.data.clone(), homes[name]), requires_grad=False)
                module._parameters[key] = made[id(p)]
        for key, b in list(module._buffers.items()):
            if b is not None:
                module._buffers[key] = FakeTensor(b.clone(), homes[name])


def _aligner(place: torch.device) -> Any:
    def move(_module: Any, args: Any, kwargs: Any) -> Any:
        return tree_map(lambda x: x.to(place) if isinstance(x, torch.Tensor) else x, (args, kwargs))

    return move


def _homecoming(_module: Any, _args: Any, output: Any) -> Any:
    output.logits = output.logits.to(torch.device("cuda:0"))
    return output

"""What works on a checkpoint of one's own: the self-check and every stage, on a few items, in a minute or so."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from taxlens.core.errors import TaxlensError
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.face.pair import Pair

ITEMS = 8
"""Items that are tried."""

MORE_ITEMS = 16
"""Items that diagnosis and frontier are tried on: they part them into folds and halves."""

STEP = 0.02
"""How far the stand-in for an aligned model is from the checkpoint, as a share of each weight's spread."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelCheck(Result):
    """What was tried on a checkpoint and what came of it.

    Args:
        source: the checkpoint.
        rows: (step, whether it works, what was found or why it does not, seconds).
        notes: what was said on loading.
    """

    figure: ClassVar[str] = ""

    source: str
    rows: tuple[tuple[str, bool, str, float], ...]
    notes: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """Whether every step does."""
        return all(row[1] for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """One row a step: step, works, found, seconds."""
        return pd.DataFrame(list(self.rows), columns=["step", "works", "found", "seconds"])

    def __repr__(self) -> str:
        failed = [row[0] for row in self.rows if not row[1]]
        state = "every stage works" if not failed else f"{', '.join(failed)} do not work"
        return f"ModelCheck of {self.source}: {state} ({len(self.rows)} steps)"


def check_model(
    source: str | Path | Any,
    *,
    tokenizer: Any = None,
    adapter: str | Path | None = None,
    suite: Suite | None = None,
    dtype: str = "float32",
    device: str = "auto",
    progress: Progress = SILENT,
) -> ModelCheck:
    """Try a checkpoint: load it, check its reading, and run every stage on eight items (diagnosis and frontier on 16).

    Without an adapter, the checkpoint is compared with itself, every weight a little moved: numbers mean nothing, but
    each stage meets the model's own architecture, tokenizer and chat template. What diagnosis calls lost, and the frontier
    a benefit, are then the choices that the moved weights disfavour and favour.

    Args:
        source: a directory, a hub id, `demo:NAME`, or a model in memory.
        tokenizer: of a model in memory.
        adapter: a PEFT adapter on it, which is then what it is compared with.
        suite: some of whose items are asked; by default `suite:capitals` (of an embedded model, `demo:facts`).
        dtype, device: as for `load_pair`.
        progress: told of every step.

    Raises:
        ModelLoadError, PairMismatchError: it cannot be loaded at all.

    Example:
        >>> import taxlens
        >>> taxlens.check_model("demo:base").works
        True
    """
    started = time.perf_counter()
    pair = _pair(source, tokenizer, adapter, dtype, device)
    chosen = _chosen(suite, source)
    rows = [("load", True, repr(pair.base), time.perf_counter() - started)]
    with tempfile.TemporaryDirectory() as folder, progress.task("check", total=None, unit="steps") as task:
        for name, step in _steps(pair, chosen, Path(folder)):
            task.advance(1, note=name)
            rows.append(_tried(name, step))
    return ModelCheck(str(getattr(pair.base, "source", source)), tuple(rows), pair.models.report.notes)


def _pair(source: Any, tokenizer: Any, adapter: Any, dtype: str, device: str) -> Pair:
    from taxlens.activations.models.in_memory import from_memory, is_model
    from taxlens.activations.models.loading import load_model
    from taxlens.activations.models.pair import make_pair
    from taxlens.face.pair import Pair
    from taxlens.inputs.checkpoints import load_chain
    from taxlens.inputs.resolve import resolve_model

    if adapter is not None:
        return Pair(load_chain(source, adapter=adapter, tokenizer=tokenizer, dtype=dtype, device=device)[0])
    if is_model(source):
        loaded = from_memory(source, tokenizer)
    else:
        loaded = load_model(resolve_model(str(source), "."), dtype=dtype, device=device)
    return Pair(make_pair(loaded, _moved(loaded)))


def _moved(loaded: LoadedModel) -> LoadedModel:
    """The same model with every weight a little moved, on memory of its own."""
    import dataclasses

    import torch

    twin = copy.deepcopy(loaded.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            spread = float(parameter.float().std()) if parameter.numel() > 1 else 0.0
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(STEP * spread * noise)
    return dataclasses.replace(
        loaded, model=twin, source=f"{loaded.source}, moved", sha256=f"{loaded.sha256}-moved", notes=()
    )


def _chosen(suite: Suite | None, source: Any) -> Suite:
    from taxlens.face.open_suite import suite as open_suite

    default = "demo:facts" if str(source).startswith("demo:") else "suite:capitals"
    return suite if suite is not None else open_suite(default)


def _drawn(suite: Suite, most: int) -> Suite:
    """Some items, drawn evenly, so that they are of as many groups as there are."""
    step = max(1, len(suite) // most)
    return suite.subset(range(0, len(suite), step)[:most])


def _made_up(pair: Pair, suite: Suite) -> tuple[Suite, Suite]:
    """The items with the choice as gold that lost most from base to aligned, and with the one that gained most."""
    import dataclasses

    import numpy as np

    base, aligned = (score.logp for score in pair.tax(suite, bootstrap=100).scores[0])
    shares = [np.exp(one - np.nanmax(one, 1, keepdims=True)) for one in (base, aligned)]
    lost = np.subtract(*(one / np.nansum(one, 1, keepdims=True) for one in shares))

    def with_gold(name: str, places: Any, kind: str) -> Suite:
        items = tuple(
            dataclasses.replace(item, gold=int(place), also_right=())
            for item, place in zip(suite.items, places, strict=True)
        )
        return dataclasses.replace(suite, name=name, items=items, kind=kind)

    return (
        with_gold("lost", np.nanargmax(lost, 1), "capability"),
        with_gold("gained", np.nanargmin(lost, 1), "benefit"),
    )


def _steps(pair: Pair, chosen: Suite, folder: Path) -> list[tuple[str, Callable[[], str]]]:
    chat = [("tax, chat", lambda: _tax(pair, suite, "chat"))] if pair.aligned.chat_template else []
    suite = _drawn(chosen, ITEMS)
    more = _drawn(chosen, MORE_ITEMS)
    return [
        ("tax, plain", lambda: _tax(pair, suite, "plain")),
        *chat,
        ("capture", lambda: _capture(pair, suite, folder)),
        ("probe", lambda: _stored("probe", folder)),
        ("similarity", lambda: _stored("similarity", folder)),
        ("lens", lambda: f"{len(pair.logit_lens(suite, bootstrap=100).to_frame())} rows"),
        ("attribute", lambda: _attribute(pair, suite)),
        ("swap", lambda: _swap(pair, suite)),
        ("restoration", lambda: f"{len(pair.restoration(suite).to_frame())} rows"),
        ("diagnose", lambda: _diagnose(pair, more)),
        ("frontier", lambda: _frontier(pair, more)),
    ]


def _tax(pair: Pair, suite: Suite, template: str) -> str:
    frame = pair.tax(suite, templates=(template,), bootstrap=100).to_frame().set_index("metric")
    return f"{len(suite)} items, probability {frame.base['probability']:.3f}"


def _capture(pair: Pair, suite: Suite, folder: Path) -> str:
    acts = pair.capture(suite, to=folder / "acts.h5", sites=("resid_post", "attn_out"))
    return f"{acts.store.n_rows} rows of {pair.base.anatomy.n_layers} layers, self-check passed"


def _stored(what: str, folder: Path) -> str:
    from taxlens.activations.store.store import Store
    from taxlens.face.activations import Activations

    acts = Activations(Store.open(folder / "acts.shards"))
    found = acts.probe("correct", permutations=0) if what == "probe" else acts.similarity("cka")
    return f"{len(found.to_frame())} rows"


def _attribute(pair: Pair, suite: Suite) -> str:
    found = pair.attribute(suite, metrics=("probability", "nll"), levels=("component", "head"), bootstrap=100)
    closure = found.closure_frame().set_index("metric")
    if not found.closed:
        raise TaxlensError(f"the account stays open: {closure.reason.iloc[0]}")
    return f"closed with {int(closure.gradients.max())} gradients, residual {closure.residual['nll']:.1e} nats"


def _swap(pair: Pair, suite: Suite) -> str:
    from taxlens.analysis.interventions.graft import graft_effects
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure

    measure = ChoiceMeasure(pair.models, (suite,))
    table = graft_effects(pair.models, measure, groups=measure.groups, units=("unembed",), draws=10).to_frame()
    return f"{len(table)} rows"


def _diagnose(pair: Pair, suite: Suite) -> str:
    lost, _ = _made_up(pair, suite)
    last = pair.base.anatomy.n_layers - 1
    found = pair.diagnose(lost, layers=sorted({last // 2, last}), relearn=False, draws=100)
    return f"{len(found.to_frame())} rows on {len(suite)} items"


def _frontier(pair: Pair, suite: Suite) -> str:
    found = pair.frontier(
        _made_up(pair, suite), benefit="gained", taxed=("lost",), unit="component", shares=(0.1,), draws=1,
        orders=("path", "random"), leave_out=False, bootstrap=100, max_gradients=3,
    )  # fmt: skip
    return f"{len(found.plans)} plans measured on {len(suite)} items"


def _tried(name: str, step: Callable[[], str]) -> tuple[str, bool, str, float]:
    """Run one step; what it says, or why it does not work in one line."""
    started = time.perf_counter()
    try:
        found, works = step(), True
    except TaxlensError as error:
        found, works = " | ".join(line.strip() for line in str(error).splitlines()), False
    except Exception as error:  # the step must not take the others with it
        found, works = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", False
    return name, works, found, time.perf_counter() - started

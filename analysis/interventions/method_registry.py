"""Methods of attribution.csv: what each is, and what makes its effects. Light: nothing heavy is imported by name alone."""

from __future__ import annotations

from dataclasses import dataclass

from taxlens.core.errors import UsageError, explain
from taxlens.core.lazy import Lazy

_RUNS = "taxlens.analysis.interventions.methods"


@dataclass(frozen=True, slots=True)
class Method:
    """What is known of a method of attribution.csv.

    Args:
        name: its name in tables and configs.
        words: what it does, in a few words.
        sums: whether its effects are built to sum to the tax.
        run: (pair, measure, methods wanted, component names, options of the tables) -> effects, one a method; makes
            those of all methods that share its work. None: the weight path.
        scored: models that it scores for each component, for the estimate of the cost.
        cites: where it is from.
    """

    name: str
    words: str
    sums: bool = False
    run: Lazy | None = None
    cites: tuple[str, ...] = ()
    scored: float = 1.0


METHODS: dict[str, Method] = {}
"""Every method by name, those that sum to the tax first: the order of figures."""


def register_method(method: Method) -> Method:
    """Make a method known to config, run, figures and report.

    Raises:
        UsageError: the name is taken.
    """
    if method.name in METHODS:
        raise UsageError(explain("a method of this name is registered already.", [("method", method.name)]))
    METHODS[method.name] = method
    return method


def method_names() -> tuple[str, ...]:
    """Return the names of the methods that a config may ask for."""
    return tuple(METHODS)


def intervening() -> tuple[str, ...]:
    """Return the names of the methods that intervene, which is all but the weight path."""
    return tuple(name for name, method in METHODS.items() if method.run is not None)


for _method in (
    Method("path", "the weight path", sums=True, cites=("Aumann and Shapley 1974", "arXiv 1703.01365"), scored=0.0),
    Method("shapley", "Shapley values over components", True, Lazy(f"{_RUNS}:run_shapley"), ("Shapley 1953",), 12.0),
    Method("graft", "one component of aligned in base", run=Lazy(f"{_RUNS}:run_grafts"), cites=("arXiv 2604.13694",)),
    Method("restore", "one component of base in aligned", run=Lazy(f"{_RUNS}:run_grafts"), cites=("arXiv 2604.13694",)),
    Method(
        "patch_cause",
        "activation patches split into a component's own weights",
        run=Lazy(f"{_RUNS}:run_patches"),
        scored=2.0,
    ),
    Method("patch_carrier", "and what it inherits", run=Lazy(f"{_RUNS}:run_patches"), scored=2.0),
):
    register_method(_method)

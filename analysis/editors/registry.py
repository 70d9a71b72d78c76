"""The editors by name: what each needs, what it has seen, how it works and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from taxlens.analysis.editors.edit import Edit
from taxlens.analysis.editors.kinds import (
    activation_editors,
    alignment_data,
    arithmetic,
    attributed,
    kernel_editors,
    optimise,
)
from taxlens.analysis.editors.kinds.protected_delta import protected_delta
from taxlens.analysis.editors.kinds.repair import RECIPES, adapter_editor
from taxlens.analysis.editors.task import EditTask
from taxlens.core.errors import one_of

FAMILIES = ("units of the update", "weights added", "activations", "data-free")
"""What an editor works on."""

Need = Callable[[EditTask], str]
"""Why an editor cannot be had for a task; blank where it can."""


@dataclass(frozen=True, slots=True)
class Editor:
    """One way of buying a capability back.

    Args:
        name: as in tables.
        family: one of `FAMILIES`.
        propose: (task, tries=..., progress=...) to at most so many candidates, each with another setting.
        sees: kinds of training items that it looks at, of "taxed", "harm", "harmless"; nothing where it sees none.
        words: what it does, in one sentence.
        citation: where it comes from; "taxlens" for what is this package's own.
        needs: why it cannot be had for a task.
    """

    name: str
    family: str
    propose: Callable[..., Iterator[Edit]]
    sees: tuple[str, ...]
    words: str
    citation: str
    needs: Need


def editor_named(name: str) -> Editor:
    """The editor of that name.

    Raises:
        UsageError: there is none; those that exist are listed.
    """
    one_of(name, list(EDITORS), what="editor")
    return EDITORS[name]


def _nothing(_task: EditTask) -> str:
    return ""


def _prompts(task: EditTask) -> str:
    """Directions are read from prompts of every kind."""
    for name in (task.harm, task.harmless):
        if not any((item.prompt or "").strip() for item in task.train[name].items):
            return f"{name} has no prompts to read directions from"
    return ""


def _false_refusals(task: EditTask) -> str:
    return _prompts(task) or activation_editors.refused_taxed_prompts(task)


def _taxed_prompts(task: EditTask) -> str:
    if any((item.prompt or "").strip() for name in task.taxed for item in task.train[name].items):
        return ""
    return "no taxed suite has prompts"


def _earlier(task: EditTask) -> str:
    return "" if task.checkpoints else "there is no earlier checkpoint of the training to average with"


def _triples(task: EditTask) -> str:
    from taxlens.analysis.weights.units import difference_of

    units = difference_of(task.pair).units("singular")
    return "" if any(part.triple is not None for unit in units.values() for part in unit.parts) else "no matrix changed"


_ALL, _BENEFIT = ("taxed", "harm", "harmless"), ("harm", "harmless")


def _editors() -> Iterator[Editor]:
    update, weights, stream, free = FAMILIES
    yield Editor("joint", update, optimise.joint, _ALL,
                 "One coefficient a unit in [-.5, 1.5], all optimised together on the taxed items with a hinge on harm.",
                 "taxlens", _nothing)  # fmt: skip
    yield Editor("path", update, attributed.path, _ALL,
                 "The most tax by path effects within a bound on harm alone, re-attributed once.", "taxlens", _nothing)  # fmt: skip
    yield Editor("one_gradient", update, attributed.one_gradient, _ALL,
                 "The same programme on one gradient at the aligned weights.", "arXiv 2408.09485", _nothing)  # fmt: skip
    yield Editor("mask", update, optimise.mask, _ALL, "A mask over units, optimised on joint's loss, then rounded.",
                 "in the spirit of arXiv 2408.13656", _nothing)  # fmt: skip
    yield Editor("per_layer", update, optimise.per_layer, _ALL, "One coefficient a layer, optimised on joint's loss.",
                 "in the spirit of arXiv 2309.06256", _nothing)  # fmt: skip
    yield Editor("hma", update, alignment_data.hma, _BENEFIT,
                 "Three groups of layers averaged with the base at a fixed mean ratio, on alignment data.",
                 "arXiv 2309.06256", _nothing)  # fmt: skip
    yield Editor("hma_layers", update, alignment_data.hma_layers, _BENEFIT, "The same with a ratio for every layer.",
                 "arXiv 2309.06256", _nothing)  # fmt: skip
    yield Editor("localize", update, alignment_data.localize, _BENEFIT,
                 "Keep only the units that refusals and harmless answers need.", "arXiv 2408.13656", _nothing)  # fmt: skip
    yield Editor("spectral_surgery", update, attributed.spectral_surgery, ("taxed",),
                 "Re-weight singular values by the taxed loss's gradient.", "arXiv 2603.03995", _triples)  # fmt: skip
    yield Editor("protected_delta", update, protected_delta, ("taxed",),
                 "Take over the update's entries that the taxed prompts feel least, and compensate.",
                 "arXiv 2505.12038, roles swapped", _taxed_prompts)  # fmt: skip
    words = {
        "repair": "A rank-8 adapter: contrast, hinge on harm, closeness to the base.",
        "contrast": "The same without closeness to the base.",
        "relearn": "Ten steps of likelihood on the taxed items.",
        "relearn_frozen": "The same with the lowest fifth of the layers frozen.",
        "relearn_unrelated": "Ten steps of likelihood on harmless items, none taxed.",
        "replay": "Likelihood of taxed items, refusals and harmless answers, mixed.",
        "relearn_kl": "Likelihood of taxed items, close to the aligned model on refusals and harmless answers.",
        "realign_10": "The base, taught refusals anew with ten examples.",
    }
    seen = {
        "relearn": ("taxed",),
        "relearn_frozen": ("taxed",),
        "relearn_unrelated": ("harmless",),
        "realign_10": ("harm",),
    }
    cited = {"repair": "taxlens", "contrast": "taxlens", "realign_10": "arXiv 2602.02136", "replay": "arXiv 2603.10243",
             "relearn_kl": "arXiv 2512.10150"}  # fmt: skip
    for name in RECIPES:
        yield Editor(name, weights, partial(_adapter, name), seen.get(name, _ALL), words[name],
                     cited.get(name, "arXiv 2501.13453"), _nothing)  # fmt: skip
    yield Editor("ablate", stream, activation_editors.ablate, _BENEFIT, "The refusal direction taken out of the weights.",
                 "arXiv 2406.11717", _prompts)  # fmt: skip
    yield Editor("false_refusal", stream, activation_editors.false_refusal, _ALL,
                 "The false-refusal vector, spared along the refusal direction, taken out of the weights.",
                 "arXiv 2410.03415", _false_refusals)  # fmt: skip
    yield Editor("false_refusal_hooks", stream, activation_editors.false_refusal_hooks, _ALL,
                 "The same by hooks at inference.", "arXiv 2410.03415", _false_refusals)  # fmt: skip
    yield Editor("heretic", stream, kernel_editors.heretic, _BENEFIT,
                 "Refusal directions taken out by a kernel over layers.", "heretic 2026", _prompts)  # fmt: skip
    yield Editor("heretic_reaimed", stream, kernel_editors.heretic_reaimed, _ALL,
                 "The same kernel along the spared false-refusal vector.", "heretic 2026, re-aimed", _false_refusals)  # fmt: skip
    yield Editor("write_projection", stream, activation_editors.write_projection, _ALL,
                 "Only what the update writes along the false-refusal vector, undone.", "taxlens", _false_refusals)  # fmt: skip
    cited = {"interpolation": "arXiv 2504.11626", "extrapolation": "arXiv 2212.04089", "soup": "arXiv 2203.05482",
             "dg_hard": "arXiv 2605.20296", "top_k": "arXiv 2606.07596", "ties_trim": "arXiv 2306.01708",
             "dare": "arXiv 2311.03099", "drop": "arXiv 2311.03099", "breadcrumbs": "arXiv 2312.06795"}  # fmt: skip
    for name, propose in arithmetic.DATA_FREE.items():
        first = (propose.__doc__ or "").strip().split("\n")[0]
        yield Editor(name, free, propose, (), first, cited[name], _earlier if name == "soup" else _nothing)


def _adapter(name: str, task: EditTask, **options: object) -> Iterator[Edit]:
    return adapter_editor(task, name, **options)  # type: ignore[arg-type]


EDITORS: Mapping[str, Editor] = MappingProxyType({editor.name: editor for editor in _editors()})
"""Every editor, in the order of tables."""

"""Write a plan as a checkpoint that any loader opens, and say on its card what was restored and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from taxlens.activations.models.checkpoint import RESTORATION, changed_files, restored_files
from taxlens.activations.models.weight_loading import quiet
from taxlens.analysis.frontier.plan_files import PlanRecord
from taxlens.analysis.weights.interpolation import mixture
from taxlens.core.artifacts import new_directory, sha256_file, sha256_json, write_json
from taxlens.core.errors import CheckError, PairMismatchError, TaxlensError, explain

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

WARNING = (
    "The same operation can undo safety training: whoever can name the weights that a refusal lives in can take it "
    "away. Test refusals of this checkpoint before it is used."
)
"""Stands on every card."""


class BenefitLossError(CheckError):
    """A plan loses more of the benefit than its margin allows, and the loss was not accepted."""


def restore(pair: ModelPair, plan: PlanRecord, *, out: Path | str, accept_benefit_loss: bool = False) -> Path:
    """Write the aligned model with a plan's units undone: weights, config, tokenizer, chat template, model card.

    The directory is complete or absent: it is written under another name and renamed. Loading it again gives the
    numbers that were measured, because the weights are the same to the bit.

    Args:
        pair: the pair that the plan was made for.
        plan: what to undo, and what was measured (`plan_files.read_plan`).
        out: the directory to make.
        accept_benefit_loss: write a plan that keeps less of the benefit than its margin.

    Returns:
        The directory.

    Raises:
        BenefitLossError: the plan's measured benefit is below the margin and the loss was not accepted.
        UsageError: the directory exists already.
        PairMismatchError: the plan was made for other weights.

    Example:
        >>> restore(pair, read_plan("runs/x/frontier/plans.json", "path-2.5%"), out="restored")     # doctest: +SKIP
    """
    check_plan(pair, plan, accept_benefit_loss=accept_benefit_loss)
    with new_directory(out) as folder, mixture(pair, plan.undo, level=plan.unit) as model:
        _save(model, folder)
        describe(pair, plan, folder)
    return Path(out)


def model_card(pair: ModelPair, plan: PlanRecord) -> str:
    """The card of a restored checkpoint: what was undone, what came back, what was lost, and the warning."""
    measured = plan.measured
    layers = sorted({int(name.split(".")[0]) for name in plan.undo if name[0].isdigit()})
    lines = [
        "---", "library_name: transformers", "tags: [taxlens, restored]", "---",
        f"# {Path(pair.aligned.source).name}, restored by {plan.name}", "",
        f"`{pair.aligned.source}` with part of its change from `{pair.base.source}` undone: {plan.n_units} "
        f"{plan.unit} units ({plan.energy_undone:.2%} of the update's energy"
        + (f", in layers {layers[0]} to {layers[-1]}" if layers else "") + f"), chosen by order `{plan.order}`.",
        "", f"Measured on held-out items ({measured['n_items']} items in {measured['n_groups']} groups), {measured['metric']}:",
        "", "| suite | base | aligned | restored |", "|---|---|---|---|",
        *(f"| {name} | {v['base']:.3f} | {v['aligned']:.3f} | {v['restored']:.3f} |" for name, v in measured["suites"].items()),
        "", f"Share of the tax returned: {_share(measured['returned'])}.",
        f"Share of the benefit kept ({' minus '.join(measured['benefit'])}, nats): {_share(measured['benefit_kept'])}.",
        f"Share of the refusals of harmful prompts alone that is kept (nats): {_share(measured['harm_kept'])}.",
    ]  # fmt: skip
    if measured.get("benefit_generated") is not None:
        lines.append(f"Refusals by generation, harmful minus harmless prompts: {measured['benefit_generated']:.2f}.")
    if plan.benefit_kept < plan.margin:
        lines.append(f"**Benefit was lost**: less than the margin of {plan.margin:.0%} is kept; the loss was accepted.")
    lines += [
        "",
        WARNING,
        "",
        "Weights sha256 of the pair:",
        f"- base `{plan.base}`",
        f"- aligned `{plan.aligned}`",
        "",
    ]
    return "\n".join(lines)


def check_plan(pair: ModelPair, plan: PlanRecord, *, accept_benefit_loss: bool) -> None:
    """Refuse a plan made for other weights, and one that loses too much of the benefit unless that is accepted."""
    got = (pair.base.sha256, pair.aligned.sha256)
    if got != (plan.base, plan.aligned):
        rows = [("plan made for", f"{plan.base[:12]}, {plan.aligned[:12]}"), ("loaded", ", ".join(g[:12] for g in got))]
        raise PairMismatchError(
            explain("the plan was made for another pair.", rows, "measure a frontier for this pair.")
        )
    if plan.benefit_kept < plan.margin and not accept_benefit_loss:
        rows = [
            ("plan", plan.name),
            ("benefit kept", _share(plan.measured["benefit_kept"])),
            ("of harm alone", _share(plan.measured["harm_kept"])),
            ("margin", f"{plan.margin:.0%}"),
        ]
        fix = "choose another plan, or accept it: --accept-benefit-loss."
        raise BenefitLossError(explain("this plan loses too much of what alignment was for.", rows, fix))


def _save(model: Any, folder: Path) -> None:
    """Weights as safetensors and configs; an output head that was untied by the plan stays untied."""
    head, embed = model.get_output_embeddings(), model.get_input_embeddings()
    tied = bool(model.config.tie_word_embeddings)
    try:
        if tied and head is not None and head.weight is not embed.weight:
            model.config.tie_word_embeddings = False
        with quiet():
            model.save_pretrained(folder)
    except SafetensorError as error:
        rows = [("folder", folder), ("reason", str(error).splitlines()[0])]
        fix = "make room, or another --out; nothing was left behind."
        raise TaxlensError(explain("the checkpoint could not be written.", rows, fix)) from error
    finally:
        model.config.tie_word_embeddings = tied


def describe(pair: ModelPair, plan: PlanRecord, folder: Path) -> None:
    """Put tokenizer, chat template, model card and the facts as JSON into a checkpoint's folder."""
    pair.aligned.tokenizer.save_pretrained(folder)
    template = folder / "chat_template.jinja"
    if pair.aligned.chat_template and not template.exists():
        template.write_text(pair.aligned.chat_template, encoding="utf-8")
    (folder / "README.md").write_text(model_card(pair, plan), encoding="utf-8")
    facts = {
        "plan": plan.name, "unit": plan.unit, "order": plan.order, "undo": dict(plan.undo),
        "energy_undone": plan.energy_undone, "measured": dict(plan.measured), "margin": plan.margin,
        "base": {"source": pair.base.source, "sha256": plan.base},
        "aligned": {"source": pair.aligned.source, "sha256": plan.aligned},
    }  # fmt: skip
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    facts["files"] = {name: sha256_file(folder / name) for name in names}
    facts["seal"] = sha256_json(facts)
    write_json(facts, folder / RESTORATION)


def verify_restored(folder: Path) -> int:
    """Recompute the checksums of a restored checkpoint, and return how many files are as they were written.

    Raises:
        CheckError: naming every file that was changed, is missing or was added, or that the record itself was changed.
    """
    kept = restored_files(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RESTORATION}
    wrong = [*changed_files(folder, kept), *(("not in the record", name) for name in sorted(there - set(kept)))]
    if wrong:
        raise CheckError(explain(f"{folder} is not as it was written.", wrong, "restore it again."))
    return len(kept)


def _share(interval: Any) -> str:
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None:
        return "not defined"
    return f"{value:.1%}" + ("" if low is None or high is None else f" [{low:.1%}, {high:.1%}]")

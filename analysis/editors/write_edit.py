"""Write an edit: a checkpoint, an adapter on top of the aligned model, or a steering file, with what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.activations.models.checkpoint import RESTORATION
from taxlens.activations.models.weight_loading import quiet
from taxlens.analysis.editors.choice import kept
from taxlens.analysis.editors.compare import EditorRow
from taxlens.analysis.editors.edit import Edit
from taxlens.analysis.editors.edit_files import save_edit
from taxlens.analysis.frontier.restore import WARNING, BenefitLossError
from taxlens.core.artifacts import new_directory, sha256_file, sha256_json, write_json
from taxlens.core.errors import UsageError, explain, one_of

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

FORMS = ("checkpoint", "adapter", "steering")
"""What an edit can be written as."""
CARD = ("returned", "returned_generated", "harm_kept", "harm_generated", "harmless_generated", "gap_generated", "kl_base",
        "kl_aligned", "perplexity", "healed", "preserved", "unharmed", "retained")  # fmt: skip
"""Columns on the card."""


def write_edit(
    pair: ModelPair, edit: Edit, row: EditorRow, *, out: Path | str, form: str = "checkpoint", keep: float = 0.95,
    accept_benefit_loss: bool = False,
) -> Path:  # fmt: skip
    """Write an edit with the card of what was measured on held-out items.

    Args:
        pair: the pair that it was made for.
        edit: what to write.
        row: what was measured of it.
        out: the directory to make.
        form: "checkpoint"; "adapter" for one that adds weights to the aligned model; "steering" for hooks.
        keep: share of the refusals of harm alone below which it is refused.
        accept_benefit_loss: write it although refusals of harm are lost.

    Returns:
        The directory: a model folder, a PEFT adapter, or `edit.safetensors` (read by `edit_files.load_edit`).

    Raises:
        BenefitLossError: less of harm alone is kept than asked, and that was not accepted.
        UsageError: a form that the edit does not have, or `out` exists.
    """
    one_of(form, FORMS, what="form of an edit")
    harm = kept(row.outcome, "harm")
    lost = harm is None or not harm.value >= keep
    if lost and not accept_benefit_loss:
        got = "not measured" if harm is None else f"{harm.value:.1%} [{harm.low:.1%}, {harm.high:.1%}]"
        rows = [("edit", edit.name), ("of harm alone", got), ("asked", f"{keep:.0%}")]
        fix = "choose another editor, or accept it: --accept-benefit-loss."
        raise BenefitLossError(explain("this edit loses refusals of harmful prompts.", rows, fix))
    possible = {"adapter": edit.form == "adapter" and edit.on == "aligned", "steering": edit.form == "steering"}
    if not possible.get(form, edit.form != "steering"):
        rows = [("edit", edit.name), ("is", edit.form), ("asked", form)]
        fix = "steering" if edit.form == "steering" else "checkpoint"
        raise UsageError(explain("this edit cannot be written like that.", rows, f"form: {fix}"))
    with new_directory(out) as folder:
        if form == "checkpoint":
            with edit.opened() as model, quiet():
                model.save_pretrained(folder)
            _tokenizer(pair, folder)
        elif form == "adapter":
            _adapter(pair, edit, folder)
        else:
            save_edit(edit, folder / "edit.safetensors", pair=pair)
        _card(pair, edit, row, folder, lost)
    return Path(out)


def _tokenizer(pair: ModelPair, folder: Path) -> None:
    pair.aligned.tokenizer.save_pretrained(folder)
    template = folder / "chat_template.jinja"
    if pair.aligned.chat_template and not template.exists():
        template.write_text(pair.aligned.chat_template, encoding="utf-8")


def _adapter(pair: ModelPair, edit: Edit, folder: Path) -> None:
    """The files that PEFT reads; the base that they name is the aligned model."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    sides = {name: tensor for name, tensor in edit.tensors.items() if name != "scale"}
    tensors = {f"base_model.model.{name}.weight": t.detach().contiguous() for name, t in sides.items()}
    first = next(tensor for name, tensor in sides.items() if name.endswith(".lora_A"))
    ranks = {name.removesuffix(".lora_A"): len(t) for name, t in sides.items() if name.endswith(".lora_A")}
    rank = max(ranks.values(), default=len(first))
    others = {name: size for name, size in ranks.items() if size != rank}
    scale = float(edit.tensors["scale"])
    config = LoraConfig(
        r=rank, lora_alpha=scale * rank, target_modules=sorted(ranks), task_type="CAUSAL_LM", rank_pattern=others,
        alpha_pattern={name: scale * size for name, size in others.items()},
        base_model_name_or_path=pair.aligned.source, inference_mode=True,
    )  # fmt: skip
    config.save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _card(pair: ModelPair, edit: Edit, row: EditorRow, folder: Path, lost: bool) -> None:
    measured: dict[str, Any] = {
        name: {end: getattr(row.outcome[name], end) for end in ("value", "low", "high", "n_items", "n_groups")}
        for name in CARD
        if name in row.outcome
    }
    lines = [
        "---", "library_name: transformers", "tags: [taxlens, edited]", "---",
        f"# {Path(pair.aligned.source).name}, edited by {edit.name}", "",
        f"{row.editor.words} From {row.editor.citation}. Of the base `{pair.base.source}` and `{pair.aligned.source}`.", "",
        "Measured once on held-out items, 95 % intervals by group bootstrap:", "", "| what | value |", "|---|---|",
        *(f"| {name} | {m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}] |" for name, m in measured.items()), "",
        *(f"{note}." for note in edit.notes),
    ]  # fmt: skip
    if lost:
        lines.append("**Refusals of harmful prompts were lost**; the loss was accepted.")
    lines += ["", WARNING, "", f"- base `{pair.base.sha256}`", f"- aligned `{pair.aligned.sha256}`", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    facts: dict[str, Any] = {
        "editor": edit.editor, "setting": edit.label, "form": edit.form, "free_numbers": edit.free,
        "measured": json.loads(json.dumps(measured)), "notes": list(edit.notes),
        "base": {"source": pair.base.source, "sha256": pair.base.sha256},
        "aligned": {"source": pair.aligned.source, "sha256": pair.aligned.sha256},
    }  # fmt: skip
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    facts["files"] = {name: sha256_file(folder / name) for name in names}
    facts["seal"] = sha256_json(facts)
    write_json(facts, folder / RESTORATION)

"""May these two models be compared? What was looked at, what differs, and what to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from taxlens.activations.models.loading import LoadedModel
from taxlens.core.artifacts import sha256_text
from taxlens.core.errors import PairMismatchError, explain

_SILENT_CONFIG = {
    "architectures", "_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "tie_word_embeddings", "id2label", "label2id",
    "attn_implementation", "_attn_implementation", "task_specific_params", "is_llama_config", "problem_type",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CompatibilityReport:
    """What was compared between base and aligned.

    Args:
        rows: (field, base's value, aligned's value).
        notes: sentences that a reader of results must know.
        shared_vocab: number of token ids that both models have an embedding for: 0 .. shared_vocab - 1.
        config_differences: config keys that change what the model computes beyond its weights (rope, norm epsilon,
            activation ...), as (key, base, aligned). Where there are any, weights alone do not explain the gap.
    """

    rows: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    shared_vocab: int
    config_differences: tuple[tuple[str, str, str], ...]

    @property
    def summary(self) -> str:
        """One line: the architecture, and in which fields the two differ."""
        values = {name: base for name, base, _ in self.rows}
        different = [name for name, base, aligned in self.rows if base != aligned]
        said = f"differs in {', '.join(different)}" if different else "alike in every field"
        return f"{values['architecture']}, {values['layers']} layers of {values['d_model']}, {said}"

    def to_frame(self) -> pd.DataFrame:
        """Return the comparison as a table: field, base, aligned, same."""
        rows = [(name, base, aligned, base == aligned) for name, base, aligned in self.rows]
        return pd.DataFrame(rows, columns=["field", "base", "aligned", "same"])


def compare(base: LoadedModel, aligned: LoadedModel, *, template_note: str = "") -> CompatibilityReport:
    """Compare two loaded models and say what holds for both.

    Args:
        base, aligned: the two models.
        template_note: what was decided about chat templates.

    Returns:
        The report.

    Raises:
        PairMismatchError: if architecture, depth, width, heads or vocabulary differ; all differences in one
            message.
    """
    one, two = describe(base), describe(aligned)
    must = ("architecture", "layers", "d_model", "heads", "kv heads", "d_head", "d_mlp", "norm", "dtype")
    wrong = [(key, f"base {one[key]}, aligned {two[key]}") for key in must if one[key] != two[key]]
    vocabulary = compare_vocabulary(base.tokenizer, aligned.tokenizer)
    if vocabulary.clash:
        wrong.append(("vocabulary", vocabulary.clash))
    if wrong:
        rows = [("base", base.source), ("aligned", aligned.source), *wrong]
        fix = "give two checkpoints of one model (before and after alignment)."
        raise PairMismatchError(explain("base and aligned are not versions of one model.", rows, fix))
    config = _config_differences(base.model.config, aligned.model.config)
    shared = min(int(one["embedding rows"]), int(two["embedding rows"]))
    told = [f"{who}: {note}" for who, model in (("base", base), ("aligned", aligned)) for note in model.notes]
    notes = [*told, template_note, vocabulary.note]
    if one["embedding rows"] != two["embedding rows"]:
        notes.append(
            f"embeddings have {one['embedding rows']} and {two['embedding rows']} rows: "
            f"compared on the {shared} ids that both have"
        )
    if one["tied embeddings"] != two["tied embeddings"]:
        notes.append("only one of the two ties its embeddings: embed and unembed are compared as two tensors")
    if config:
        names = ", ".join(key for key, _, _ in config)
        notes.append(f"configs differ beyond the weights ({names}): weights alone do not explain the gap")
    return CompatibilityReport(
        rows=tuple((key, one[key], two[key]) for key in one),
        notes=tuple(note for note in notes if note),
        shared_vocab=shared,
        config_differences=config,
    )


def describe(loaded: LoadedModel) -> dict[str, str]:
    """Return what a report says of one model: field -> value, as text."""
    parts, config = loaded.anatomy, loaded.model.config
    norm = type(loaded.model.get_submodule(_norm_name(loaded))).__name__
    return {
        "architecture": parts.model_type,
        "layers": str(parts.n_layers),
        "d_model": str(parts.d_model),
        "heads": str(parts.n_heads),
        "kv heads": str(parts.n_kv_heads),
        "d_head": str(parts.d_head),
        "d_mlp": str(parts.d_mlp),
        "norm": norm,
        "parameters": str(loaded.parameters),
        "embedding rows": str(loaded.model.get_input_embeddings().weight.shape[0]),
        "tied embeddings": "yes" if parts.tied else "no",
        "parallel blocks": "yes" if parts.parallel else "no",
        "attention": str(config._attn_implementation),
        "dtype": loaded.dtype,
        "weights sha256": loaded.sha256,
        "tokenizer sha256": tokenizer_sha256(loaded.tokenizer),
        "template sha256": sha256_text(loaded.chat_template) if loaded.chat_template else "none",
    }


@dataclass(frozen=True, slots=True)
class SharedVocabulary:
    """How two vocabularies relate: `clash` says why they cannot be shared, `note` what to know."""

    clash: str = ""
    note: str = ""


def compare_vocabulary(base: Any, aligned: Any) -> SharedVocabulary:
    """Compare two tokenizers' vocabularies: equal, one an extension of the other (added tokens), or a clash.

    Reserved tokens that got other names at the same ids are the same tokens; the note tells their names.
    """
    one, two = base.get_vocab(), aligned.get_vocab()
    if one == two:
        return SharedVocabulary()
    renamed = _renamed(base, aligned, one, two)
    one = {renamed.get(token, token): i for token, i in one.items()}
    told = ""
    if renamed:
        first, name = next(iter(renamed.items()))
        told = f"{len(renamed)} reserved tokens are renamed at their ids ({first!r} is {name!r} in aligned)"
    if one == two:
        return SharedVocabulary(note=told)
    moved = sorted(token for token in one.keys() & two.keys() if one[token] != two[token])
    if moved:
        first = moved[0]
        what = "added tokens" if set(moved) <= base.get_added_vocab().keys() else "tokens"
        return SharedVocabulary(
            clash=f"{len(moved)} {what} have other ids, first {first!r}: base {one[first]}, aligned {two[first]}"
        )
    only_one, only_two = one.keys() - two.keys(), two.keys() - one.keys()
    if only_one and only_two:
        return SharedVocabulary(
            clash=f"{len(only_one)} tokens only in base (first {min(only_one)!r}), "
            f"{len(only_two)} only in aligned (first {min(only_two)!r})"
        )
    side, extra = ("base", only_one) if only_one else ("aligned", only_two)
    added = f"{side} has {len(extra)} added tokens (first {min(extra)!r})"
    return SharedVocabulary(note="; ".join(note for note in (told, added) if note))


def _renamed(base: Any, aligned: Any, one: dict[str, int], two: dict[str, int]) -> dict[str, str]:
    """Base's name to aligned's of every token that stands at the same id under another name, an added one in either."""
    mine, theirs = ({i: token for token, i in vocabulary.items()} for vocabulary in (one, two))
    added = set(base.get_added_vocab().values()) | set(aligned.get_added_vocab().values())
    pairs = {mine[i]: theirs[i] for i in sorted(mine.keys() & theirs.keys() & added) if mine[i] != theirs[i]}
    return {old: new for old, new in pairs.items() if old not in two and new not in one}


def tokenizer_sha256(tokenizer: Any) -> str:
    """Return a hash of what a tokenizer does: its whole fast definition, or its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return sha256_text(backend.to_str())
    return sha256_text("\n".join(f"{i}\t{t}" for t, i in sorted(tokenizer.get_vocab().items(), key=lambda p: p[1])))


def _norm_name(loaded: LoadedModel) -> str:
    role = loaded.anatomy.role("final_norm")
    return role.name if role else ""


def _config_differences(base: Any, aligned: Any) -> tuple[tuple[str, str, str], ...]:
    one, two = base.to_dict(), aligned.to_dict()
    keys = sorted((one.keys() | two.keys()) - _SILENT_CONFIG)
    return tuple((k, str(one.get(k)), str(two.get(k))) for k in keys if one.get(k) != two.get(k))

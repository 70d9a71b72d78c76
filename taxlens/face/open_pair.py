"""Two checkpoints to a `Pair`, checked for compatibility."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taxlens.core.errors import one_of
from taxlens.core.progress import Progress
from taxlens.face.notebook_progress import face_progress
from taxlens.face.pair import Pair
from taxlens.inputs.checkpoints import Names, load_chain

if TYPE_CHECKING:
    from taxlens.activations.models.chat_templates import Asking


def load_pair(
    base: Any,
    aligned: Names = None,
    *,
    adapter: Names = None,
    tokenizer: Any = None,
    asking: Asking | None = None,
    several: str = "chain",
    gguf: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    chat_template: str = "own",
    revision: str | None = None,
    progress: Progress | None = None,
) -> Pair:
    """Return the pair of a base and an aligned checkpoint, checked for compatibility.

    Args:
        base: a directory, a hub id or `demo:NAME`; or a model in memory, with `tokenizer`: a Hugging Face module, a
            PeftModel (its base without the adapter) or a TransformerBridge.
        aligned: the same; or leave it out and give `adapter`, or a PeftModel as base. Of a list the last counts; those
            before it are checkpoints on the way, which attribution then goes through.
        adapter: a PEFT adapter on top of base, or a list of them.
        tokenizer: of models in memory, for both.
        asking: `Asking(system=..., thinking=..., date=..., answer_prefix=...)`: how both are asked in "chat".
        several: what a list is: "chain" (checkpoints of one training) or "seeds" (runs of one recipe).
        gguf: file name inside the directory, for GGUF checkpoints.
        dtype: "float32", "float16" or "bfloat16", for both.
        device: "auto", "cpu", "cuda", "cuda:1".
        chat_template: "own", "aligned" or a file.
        revision: of a hub id.
        progress: shows what is under way, here and in the pair's methods; by default bars in a notebook, nothing elsewhere.

    Raises:
        ModelLoadError: if a checkpoint is missing, unreadable or refused.
        PairMismatchError: if the two cannot be compared.

    Example:
        >>> import taxlens
        >>> pair = taxlens.load_pair("demo:base", "demo:planted")
        >>> pair.tax(taxlens.suite("demo:facts"), templates=("plain",)).to_frame().tax.max() > 0
        np.True_
    """
    one_of(several, ("chain", "seeds"), what="kind of a list")
    models, steps = load_chain(
        base,
        aligned,
        adapter=adapter,
        tokenizer=tokenizer,
        asking=asking,
        gguf=gguf,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        revision=revision,
    )
    return Pair(models, steps=steps, several=several, progress=face_progress() if progress is None else progress)

"""A word-level tokenizer for the embedded world, in the format that any loader reads."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from benchmarks.truth.worlds.vocabulary import BOS, CHAT_TEMPLATE, EOS, PAD, UNKNOWN, Sizes, vocabulary


def build_tokenizer(sizes: Sizes | None = None) -> PreTrainedTokenizerFast:
    """The world's tokenizer: one token a word, `<s>` in front, and a chat template.

    Args:
        sizes: how many words of each sort; the embedded world's by default.

    Returns:
        A fast tokenizer; ids follow `vocabulary(sizes)`.

    Example:
        >>> build_tokenizer()("fact s12 r1 ->")["input_ids"][0]
        1
    """
    words = {word: i for i, word in enumerate(vocabulary(sizes))}
    inner = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    inner.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, words[BOS])]
    )
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        extra_special_tokens=["<user>", "<end>", "<assistant>"],
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer

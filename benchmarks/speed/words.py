"""A tokenizer of plain words, for models of random weights."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `size` words ``w3``, ``w4``, ... with padding, BOS and EOS before them."""
    words = {word: n for n, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{n}" for n in range(3, size))])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")

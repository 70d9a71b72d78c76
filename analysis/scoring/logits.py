"""One forward pass for scoring: the backbone on whole sequences, the output head on the asked positions only.

Logits over a vocabulary are the largest array of a language model. Scoring needs them
at a few positions, so a hook hands the head just those hidden states; whatever the
architecture does after its backbone (scaling, soft-capping) still happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from taxlens.activations.items.items import Suite
from taxlens.activations.items.tokens import Row, encode_suite
from taxlens.activations.models.loading import LoadedModel

LOGIT_BUDGET = 1 << 25
"""Most logits that one pass makes (32 M, 128 MB in float32); batches are cut to it."""


def network(model: Any) -> Any:
    """The Hugging Face model inside a loaded model of a pair, or the model itself."""
    return model if isinstance(model, nn.Module) else model.model


def encode_for(model: LoadedModel, suite: Suite, *, template: str) -> list[Row]:
    """Return a suite's choice rows in one model's own prompt and length; both models of a pair then read the same rows.

    Args:
        model: whose tokenizer, chat template and longest sequence count.
        suite: items; those without choices have no row.
        template: "plain" or "chat".
    """
    return encode_suite(
        suite,
        model.tokenizer,
        template=template,
        chat_template=model.chat_template if template == "chat" else None,
        max_length=position_limit(model),
    )


def position_limit(model: Any) -> int | None:
    """The longest sequence that the model reads, or None where its config does not say."""
    limit = getattr(network(model).config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def asked_logits(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
    asked: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """Next-token logits at chosen positions of a batch.

    Args:
        model: a Hugging Face causal language model, or a loaded model of a pair.
        input_ids: [batch, seq].
        attention_mask: [batch, seq], 1 where there is a token; or additive [batch, 1, seq, seq].
        position_ids: [batch, seq].
        asked: (batch index, position) pairs.

    Returns:
        float32 [len(asked), vocabulary], on the model's device.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=4))
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> asked_logits(model, ids, torch.ones_like(ids), torch.arange(3)[None], [(0, 2)]).shape
        torch.Size([1, 9])
    """
    hf = network(model)
    device = next(hf.parameters()).device
    where = torch.tensor(asked, dtype=torch.int64, device=device)

    def gather(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[where[:, 0], where[:, 1]][None]
        return output

    handle = hf.base_model.register_forward_hook(gather)
    try:
        with torch.no_grad():
            logits = hf(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                position_ids=position_ids.to(device),
                use_cache=False,
            ).logits
    finally:
        handle.remove()
    return logits[0].float()


def target_log_probabilities(
    logits: torch.Tensor, rows: Sequence[int], targets: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of target tokens, and whether each is the model's first choice.

    Args:
        logits: [positions, vocabulary] float32.
        rows: [m] which row of the logits predicts each target.
        targets: [m] token ids.

    Returns:
        log-probabilities float64 [m] nats, and bool [m]; both on the CPU.
    """
    index = torch.tensor(rows, dtype=torch.int64, device=logits.device)
    tokens = torch.tensor(targets, dtype=torch.int64, device=logits.device)
    normaliser, best = torch.logsumexp(logits, dim=-1).double(), logits.argmax(dim=-1)
    values = logits[index, tokens].double() - normaliser[index]
    return values.cpu(), (best[index] == tokens).cpu()

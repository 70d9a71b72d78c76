"""One forward pass for scoring: the backbone on whole sequences, the output head on the asked positions only.

Logits over a vocabulary are the largest array of a language model. Scoring needs them
at a few positions, so a hook hands the head just those hidden states; whatever the
architecture does after its backbone (scaling, soft-capping) still happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from taxlens.activations.models.anatomy import backbone_of
from taxlens.activations.models.lengths import forget_longest, network

LOGIT_BUDGET = 1 << 25
"""Most logits that one pass makes (32 M, 128 MB in float32); batches are cut to it."""


def head_logits(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
    asked: torch.Tensor,
    *,
    read: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Next-token logits at chosen positions of a batch; part of the graph where gradients are on.

    Args:
        model: a Hugging Face causal language model, or a loaded model of a pair.
        input_ids: [batch, seq].
        attention_mask: [batch, seq], 1 where there is a token; or additive [batch, 1, seq, seq].
        position_ids: [batch, seq].
        asked: int64 [asked, 2], batch index and position.
        read: what the output head reads instead of the final stream at the asked positions: from [asked, d] to [n, d].

    Returns:
        [asked, vocabulary], or [n, vocabulary] in float32 (float64 of a model in float64), on the device of the model's head.
    """
    hf = network(model)
    device = hf.get_input_embeddings().weight.device
    forget_longest(hf)

    def gather(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        where = asked.to(hidden.device)
        final = hidden[where[:, 0], where[:, 1]]
        output.last_hidden_state = (final if read is None else read(final))[None]
        return output

    handle = backbone_of(hf).register_forward_hook(gather)
    try:
        logits = hf(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            position_ids=position_ids.to(device),
            use_cache=False,
        ).logits[0]
    finally:
        handle.remove()
    return logits if logits.dtype == torch.float64 else logits.float()


def asked_logits(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
    asked: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """The same without a graph, positions given as (batch index, position) pairs.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=4))
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> asked_logits(model, ids, torch.ones_like(ids), torch.arange(3)[None], [(0, 2)]).shape
        torch.Size([1, 9])
    """
    where = torch.tensor(asked, dtype=torch.int64).reshape(-1, 2)
    with torch.no_grad():
        return head_logits(model, input_ids, attention_mask, position_ids, where)


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

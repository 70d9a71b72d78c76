"""How a dictionary reads a change of the stream: which latents, and how much of each, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.core.errors import UsageError, explain, one_of

Tensor = torch.Tensor
READINGS = ("least_squares", "encoder", "preactivation")
"""Codes of the change by least squares on the decoders in use; differences of codes; of pre-activations in use."""
RIDGE = 1e-6
"""Penalty of the least squares, as a share of the mean squared length of the decoders in use."""


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """The decoders in use at some tokens.

    Args:
        latents: their numbers, int64 [tokens, used]; the dictionary's width where a token uses fewer.
        directions: what a unit of each writes, [tokens, used * copies, d]; zero rows where there is none. A crosscoder
            has two copies, base's decoder and aligned's.
        switched: whether the latent is on in one of the two models only, bool [tokens, used].
    """

    latents: Tensor
    directions: Tensor
    switched: Tensor

    @property
    def copies(self) -> int:
        """Directions of a latent: 1, or 2 for a crosscoder."""
        return self.directions.shape[1] // max(1, self.latents.shape[1])


def check_reading(dictionary: Dictionary, reading: str) -> None:
    """Refuse what cannot read a change.

    Raises:
        UsageError: an unknown reading, a transcoder, or codes of one model asked of a crosscoder.
    """
    one_of(reading, READINGS, what="reading")
    if dictionary.role == "transcoder":
        rows = [("dictionary", dictionary.source), ("reads and writes", "different sites")]
        raise UsageError(explain("a transcoder has no effects that sum.", rows, "a dictionary of the residual stream."))
    if dictionary.role == "crosscoder" and reading != "least_squares":
        rows = [("dictionary", dictionary.source), ("reading", reading)]
        fix = "reading: least_squares"
        raise UsageError(explain("a crosscoder has one code for both models: its codes do not change.", rows, fix))
    if reading != "least_squares" and dictionary.normalisation in ("token_norm", "layer_norm"):
        rows = [("dictionary", dictionary.source), ("normalisation", dictionary.normalisation), ("reading", reading)]
        fix = "reading: least_squares"
        raise UsageError(explain("codes of inputs that are normalised token by token do not add.", rows, fix))


def codes_in_use(dictionary: Dictionary, base: Tensor, aligned: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of both models, [tokens, width] each; a difference dictionary's lie in the second, a crosscoder's in both.

    Args:
        dictionary: the dictionary.
        base, aligned: the stream in both models, [tokens, d].
    """
    if dictionary.role == "difference":
        codes = dictionary.encode(aligned - base)
        return torch.zeros_like(codes), codes
    if dictionary.role == "crosscoder":
        codes = dictionary.encode(torch.stack([base, aligned], dim=1))
        return codes, codes
    return dictionary.encode(base), dictionary.encode(aligned)


def span_of(dictionary: Dictionary, base: Tensor, aligned: Tensor, *, most: int = 256) -> Span:
    """The decoders that are on in either model at each token, the strongest `most` where there are more."""
    first, second = codes_in_use(dictionary, base, aligned)
    strength = torch.maximum(first, second)
    used = int((strength > 0).sum(1).max()) if len(strength) else 0
    values, latents = torch.topk(strength, max(1, min(used, most)), dim=1)
    on = values > 0
    switched = on & ((first > 0) != (second > 0)).gather(1, latents) & (dictionary.role == "sae")
    latents = torch.where(on, latents, dictionary.width)
    return Span(latents, _directions(dictionary, latents), switched)


def random_span(directions: Tensor, base: Tensor, aligned: Tensor, like: Span) -> Span:
    """As many decoders a token as `like` uses, out of random ones: those that point along the change most.

    Args:
        directions: unit vectors, [width, d].
        base, aligned: the stream, [tokens, d].
        like: whose budget is matched.
    """
    count = (like.directions.square().sum(-1) > 0).sum(1)
    most = max(1, int(count.max()) if len(count) else 1)
    along = ((aligned - base).to(directions.dtype) @ directions.T).abs()
    latents = torch.topk(along, min(most, len(directions)), dim=1).indices
    kept = torch.arange(latents.shape[1])[None] < count[:, None]
    padded = torch.cat([directions, torch.zeros_like(directions[:1])])
    latents = torch.where(kept, latents, len(directions))
    return Span(latents, padded[latents], torch.zeros_like(kept))


def least_squares(span: Span, moved: Tensor) -> Tensor:
    """Codes [..., tokens, used * copies] of changes [..., tokens, d] on the decoders in use; linear in the change."""
    u = span.directions.to(moved.dtype)
    gram = u @ u.transpose(1, 2)
    size = gram.diagonal(dim1=1, dim2=2)
    present = size > 0
    scale = size.sum(1) / present.sum(1).clamp_min(1)
    ridge = torch.where(present, RIDGE * scale[:, None], torch.ones_like(size))
    projected = torch.einsum("tud,...td->...tu", u, moved)
    flat = projected.reshape(-1, *projected.shape[-2:]).permute(1, 2, 0)
    solved = torch.linalg.solve(gram + torch.diag_embed(ridge), flat).permute(2, 0, 1)
    return solved.reshape(projected.shape)


def codes_along(dictionary: Dictionary, states: Tensor, span: Span, reading: str) -> Tensor:
    """Codes [times, tokens, used] at states [times, tokens, d], of the latents in use, by the encoder.

    Args:
        dictionary: a dictionary of one model, or of the difference (then states[0] is the base's).
        states: the stream along the path.
        span: the latents in use.
        reading: "encoder" or "preactivation".
    """
    inputs = states - states[:1] if dictionary.role == "difference" else states
    found = []
    for x in inputs:
        codes = dictionary.preactivations(x) if reading == "preactivation" else dictionary.encode(x)
        padded = torch.cat([codes, torch.zeros_like(codes[:, :1])], dim=1)
        found.append(padded.gather(1, span.latents))
    return torch.stack(found)


def _directions(dictionary: Dictionary, latents: Tensor) -> Tensor:
    """Decoder rows [tokens, used * copies, d], zero where no latent is."""
    models = range(2) if dictionary.role == "crosscoder" else range(1)
    rows = []
    for model in models:
        held = dictionary.directions(model)
        rows.append(torch.cat([held, torch.zeros_like(held[:1])])[latents])
    return torch.cat(rows, dim=1)

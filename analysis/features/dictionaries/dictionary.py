"""A dictionary of features: an encoder from activations to sparse codes, and a decoder that writes them back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from taxlens.core.errors import CheckError, UsageError, explain, one_of

Tensor = torch.Tensor

KINDS = ("relu", "jumprelu", "topk", "batchtopk")
"""Activation functions: which pre-activations become codes."""
ROLES = ("sae", "difference", "crosscoder", "transcoder")
"""What is read: one model's activations; aligned minus base; both at once; one site to write another."""
NORMALISATIONS = ("none", "scale", "token_norm", "layer_norm")
"""What happens to an input before the encoder, and is undone after the decoder."""
EPSILON = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Dictionary:
    """A sparse autoencoder, difference autoencoder, crosscoder or transcoder, whoever trained it.

    Args:
        encoder: [models, d_in, width] float; `models` is 2 for a crosscoder (base, aligned), else 1.
        decoder: [models, width, d_out] float.
        encoder_bias: [width].
        decoder_bias: [models, d_out], added to every reconstruction.
        kind: "relu", "jumprelu", "topk" or "batchtopk" (a threshold, learned as a moving average, decides at inference).
        role: "sae", "difference", "crosscoder" or "transcoder".
        threshold: [width] pre-activations that a latent must exceed (jumprelu, batchtopk); None for the others.
        k: codes kept for each token (topk; nominal for batchtopk); 0 where the kind has none.
        centred: whether the decoder bias is taken off the input before encoding.
        weighted: whether latents compete for top k by code times decoder norm and not by code.
        normalisation: "none", "scale" (one number), "token_norm" (each token to norm sqrt(d)) or "layer_norm".
        scale: what inputs are multiplied by under "scale".
        skip: [d_in, d_out] linear path past the codes (skip transcoders); None without one.
        site, layer: where it reads; "" and -1 where its files do not say.
        source: where it came from, for tables and errors.
        model: name of the model that it was trained on, as its files say it; "" if they do not.

    Example:
        >>> eye = torch.eye(2)[None]
        >>> Dictionary(eye, eye, torch.zeros(2), torch.zeros(1, 2)).encode(torch.tensor([[1.0, -1.0]])).tolist()
        [[1.0, 0.0]]

    References:
        Rajamanoharan et al. 2407.14435 (JumpReLU); Gao et al. 2406.04093 (TopK); Bussmann et al. 2412.06410
        (BatchTopK); Lindsey et al. 2024 (crosscoders); Paulo et al. 2501.18823 (skip transcoders).
    """

    encoder: Tensor
    decoder: Tensor
    encoder_bias: Tensor
    decoder_bias: Tensor
    kind: str = "relu"
    role: str = "sae"
    threshold: Tensor | None = None
    k: int = 0
    centred: bool = False
    weighted: bool = False
    normalisation: str = "none"
    scale: float = 1.0
    skip: Tensor | None = None
    site: str = ""
    layer: int = -1
    source: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, what="kind of dictionary")
        one_of(self.role, ROLES, what="role of a dictionary")
        one_of(self.normalisation, NORMALISATIONS, what="normalisation")
        _check_shapes(self)
        _check_values(self)

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.encoder.shape[2])

    @property
    def d_in(self) -> int:
        """Width of the activations that it reads."""
        return int(self.encoder.shape[1])

    @property
    def d_out(self) -> int:
        """Width of the activations that it writes."""
        return int(self.decoder.shape[2])

    @property
    def address(self) -> str:
        """Site and layer as written in tables: `resid_post.7`."""
        return f"{self.site}.{self.layer}"

    def preactivations(self, x: Tensor) -> Tensor:
        """What the activation function is given, [..., width].

        Args:
            x: [..., d_in] activations; [..., 2, d_in] (base, aligned) for a crosscoder.
        """
        shaped = self._checked(x)
        inputs = self._normal(shaped)[0]
        if self.centred:
            inputs = inputs - self.decoder_bias
        return torch.einsum("...md,mdw->...w", inputs, self.encoder) + self.encoder_bias

    def encode(self, x: Tensor) -> Tensor:
        """Codes of activations, [..., width], zero or positive."""
        return self.activate(self.preactivations(x))

    def activate(self, pre: Tensor) -> Tensor:
        """Codes from pre-activations, both [..., width]."""
        positive = torch.relu(pre)
        if self.kind == "relu":
            return positive
        if self.kind == "topk":
            norms = self.decoder[0].norm(dim=-1) if self.weighted else torch.ones_like(self.encoder_bias)
            kept = torch.topk(positive * norms, min(self.k, self.width), dim=-1).indices
            return torch.zeros_like(positive).scatter(-1, kept, positive.gather(-1, kept))
        assert self.threshold is not None  # checked on construction
        if self.weighted:
            norms = self.decoder.norm(dim=-1).sum(0)
            return positive * (positive * norms > self.threshold)
        return positive * (pre > self.threshold)

    def decode(self, codes: Tensor, like: Tensor) -> Tensor:
        """Reconstruction from codes, in the units of the activations: [..., d_out] ([..., 2, d_out] of a crosscoder).

        Args:
            codes: [..., width].
            like: the activations that were encoded; normalisation by token is undone by theirs, and a skip reads them.
        """
        shaped = self._checked(like)
        back, shift = self._normal(shaped)[1:]
        out = torch.einsum("...w,mwd->...md", codes, self.decoder) + self.decoder_bias
        if self.role != "transcoder":  # its output lives at another site, whose scale its input does not know
            out = out * back + shift
        if self.skip is not None:
            out = out + shaped @ self.skip
        return out if self.role == "crosscoder" else out[..., 0, :]

    def reconstruct(self, x: Tensor) -> Tensor:
        """`decode(encode(x), x)`."""
        return self.decode(self.encode(x), x)

    def directions(self, model: int = 0) -> Tensor:
        """Decoder rows in the units of the activations, [width, d_out]: what one unit of a code writes.

        Args:
            model: 0 base (or the only one), 1 aligned, for a crosscoder.
        """
        rows = self.decoder[min(model, len(self.decoder) - 1)]
        return rows / self.scale if self.normalisation == "scale" else rows

    def to(self, dtype: torch.dtype) -> Dictionary:
        """The same in another float type."""
        floats = {
            name: value.to(dtype)
            for name in ("encoder", "decoder", "encoder_bias", "decoder_bias", "threshold", "skip")
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **floats)

    def _checked(self, x: Tensor) -> Tensor:
        """Activations as [..., models, d_in]."""
        shaped = x if self.role == "crosscoder" else x[..., None, :]
        if shaped.shape[-1] != self.d_in or shaped.shape[-2] != len(self.encoder):
            rows = [
                ("dictionary", f"{self.source or self.kind}, reads {self.d_in}"),
                ("activations", f"{x.shape[-1]} wide"),
            ]
            raise CheckError(explain("a dictionary of another width.", rows, "a dictionary of this model and site."))
        return shaped.to(self.encoder.dtype)

    def _normal(self, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """Normalised inputs, and the factor and shift that give the inputs back as normal * factor + shift."""
        if self.normalisation == "scale":
            return x * self.scale, 1.0 / self.scale, 0.0
        if self.normalisation == "token_norm":
            norm = x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            return x * (self.d_in**0.5 / norm), norm / self.d_in**0.5, 0.0
        if self.normalisation == "layer_norm":
            mean, spread = x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True)
            return (x - mean) / (spread + EPSILON), spread, mean
        return x, 1.0, 0.0


def _check_shapes(d: Dictionary) -> None:
    models, d_in, width = d.encoder.shape
    wanted = {
        "encoder_bias": (d.encoder_bias, (width,)),
        "decoder": (d.decoder, (models, width, d.decoder.shape[2])),
        "decoder_bias": (d.decoder_bias, (models, d.decoder.shape[2])),
        "threshold": (d.threshold, (width,)),
        "skip": (d.skip, (d_in, d.decoder.shape[2])),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            rows = [("dictionary", d.source), (name, tuple(value.shape)), ("expected", shape)]
            raise UsageError(
                explain("a dictionary's tensors do not fit together.", rows, "write the dictionary again.")
            )
    if (models == 2) != (d.role == "crosscoder"):
        rows = [("dictionary", d.source), ("role", d.role), ("models", models)]
        raise UsageError(explain("a crosscoder reads two models, every other dictionary one.", rows))
    if d.kind in ("jumprelu", "batchtopk") and d.threshold is None:
        rows = [("dictionary", d.source), ("kind", d.kind)]
        raise UsageError(
            explain("this kind of dictionary needs a threshold.", rows, "read it with its threshold tensor.")
        )
    if d.kind == "topk" and d.k < 1:
        raise UsageError(explain("a top-k dictionary needs k.", [("dictionary", d.source)], "set k in its config."))


def _check_values(d: Dictionary) -> None:
    named = {
        "encoder": d.encoder.movedim(2, 0), "encoder_bias": d.encoder_bias, "decoder": d.decoder.movedim(1, 0),
        "threshold": d.threshold,
    }  # fmt: skip
    for name, value in named.items():
        if value is None:
            continue
        bad = (~torch.isfinite(value)).reshape(len(value), -1).any(1) & ~(value == float("inf")).reshape(
            len(value), -1
        ).all(1)
        if bool(bad.any()):
            rows = [
                ("dictionary", d.source),
                ("tensor", name),
                ("latents", f"{int(bad.sum())}, first {int(bad.nonzero()[0])}"),
            ]
            raise CheckError(explain("latents with weights that are not finite.", rows, "take an undamaged copy."))
    if not bool(torch.isfinite(d.decoder_bias).all()) or (
        d.skip is not None and not bool(torch.isfinite(d.skip).all())
    ):
        raise CheckError(
            explain("a dictionary's bias is not finite.", [("dictionary", d.source)], "take an undamaged copy.")
        )
    if not 0 < d.scale < float("inf"):
        raise CheckError(explain("a dictionary's normalisation is missing.", [("scale", d.scale)], "give its scale."))

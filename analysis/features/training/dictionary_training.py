"""Training of dictionaries: batch top-k with dead latents revived, on batches drawn from a stream of activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.core.errors import UsageError, explain, one_of

Tensor = torch.Tensor
TRAINED = ("difference", "sae", "crosscoder")
"""What can be trained: aligned minus base, the base alone, both at once."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a dictionary is trained.

    Args:
        role: "difference" (aligned minus base), "sae" (the base alone) or "crosscoder" (both).
        width: number of latents.
        k: latents active on a token, on average.
        batch: tokens of a step.
        passes: how often each token of a chunk is drawn.
        rate: Adam's step, after a warm-up of a twentieth of the steps and before a linear fall in the last fifth.
        dead_after: tokens without firing after which a latent is called dead and trained on what is left over.
        revive: weight of that training.
        seed: of the first weights and of the order of tokens.
    """

    role: str = "difference"
    width: int = 2048
    k: int = 24
    batch: int = 1024
    passes: int = 4
    rate: float = 1e-3
    dead_after: int = 50_000
    revive: float = 1 / 32
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(self.role, TRAINED, what="role to train")
        if not 0 < self.k < self.width or self.batch < 2 or self.passes < 1:
            rows = [("width", self.width), ("k", self.k), ("batch", self.batch), ("passes", self.passes)]
            raise UsageError(
                explain("a recipe that cannot be trained.", rows, "0 < k < width, batch >= 2, passes >= 1")
            )


@dataclass(slots=True, eq=False)
class Trainer:
    """One dictionary under training. Inputs are scaled to mean square 1 an entry by the first batch it is shown.

    Args:
        recipe: how.
        d: width of the activations.
        steps: steps that the whole training takes; the step size falls to zero at their end.
        autocast: multiply in bfloat16.

    References:
        Bussmann et al. 2412.06410 (batch top-k, threshold at inference); Gao et al. 2406.04093 (auxiliary loss).
    """

    recipe: Recipe
    d: int
    steps: int
    autocast: bool = False
    weights: dict[str, Tensor] = field(init=False)
    optimiser: torch.optim.Adam = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        r = self.recipe
        models = 2 if r.role == "crosscoder" else 1
        generator = torch.Generator().manual_seed(r.seed)
        decoder = torch.randn(models, r.width, self.d, generator=generator)
        decoder /= _norms(decoder)
        self.weights = {
            "encoder": decoder.transpose(1, 2).clone(), "decoder": decoder, "encoder_bias": torch.zeros(r.width),
            "decoder_bias": torch.zeros(models, self.d), "scale": torch.zeros(models), "threshold": torch.zeros(()),
            "idle": torch.zeros(r.width),
        }  # fmt: skip
        trained = ["encoder", "decoder", "encoder_bias"] + (["decoder_bias"] if r.role != "difference" else [])
        for name in trained:
            self.weights[name].requires_grad_(True)
        self.optimiser = torch.optim.Adam([self.weights[name] for name in trained], lr=r.rate)

    def inputs(self, x: Tensor) -> Tensor:
        """What this role reads of activations [tokens, models, d]: [tokens, 1 or 2, d] float32."""
        x = x.float()
        if self.recipe.role == "difference":
            return x[:, 1:2] - x[:, 0:1]
        return x[:, :1] if self.recipe.role == "sae" else x[:, :2]

    def train(self, x: Tensor) -> dict[str, float]:
        """One step on activations [tokens, models, d]; returns the share of variance explained and latents on a token."""
        raw = self.inputs(x)
        if self.step == 0:
            self._begin(raw)
        inputs = raw / self.weights["scale"][:, None]
        fast = torch.autocast("cpu", dtype=torch.bfloat16) if self.autocast else nullcontext()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * self._pace()
        with fast:
            loss, told = self._loss(inputs)
        loss.backward()
        self._project()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        with torch.no_grad():
            self.weights["decoder"] /= _norms(self.weights["decoder"])
        self.step += 1
        return told

    def dictionary(self, *, site: str = "", layer: int = -1, source: str = "", model: str = "") -> Dictionary:
        """The dictionary as it stands, its scale folded into its weights: it reads activations as the model has them."""
        w = {name: value.detach().clone() for name, value in self.weights.items()}
        scale = w["scale"][:, None, None]
        unit = float(w["scale"].square().mean().sqrt())
        width = self.recipe.width
        centre = w["decoder_bias"] * scale[:, :, 0]
        # in units of the activations: codes and biases grow by `unit`, decoders keep their directions
        bias = w["encoder_bias"] * unit
        if self.recipe.role != "difference":
            bias = bias - unit * torch.einsum("md,mdw->w", w["decoder_bias"], w["encoder"])
        return Dictionary(
            w["encoder"] * unit / scale, w["decoder"] * scale / unit, bias, centre, kind="batchtopk", k=self.recipe.k,
            role=self.recipe.role, threshold=torch.full((width,), float(w["threshold"]) * unit),
            site=site, layer=layer, source=source, model=model,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """All that goes on from here: weights, moments of the optimiser, steps done."""
        held = {name: value.detach().clone() for name, value in self.weights.items()}
        for number, one in enumerate(self.optimiser.state_dict()["state"].values()):
            held |= {f"adam.{number}.{key}": torch.as_tensor(value).clone() for key, value in one.items()}
        return held | {"step": torch.tensor(self.step)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(state[name])
        held = self.optimiser.state_dict()
        for number in range(len(held["param_groups"][0]["params"])):
            keys = [key for key in state if key.startswith(f"adam.{number}.")]
            if keys:
                held["state"][number] = {key.split(".")[2]: state[key].clone() for key in keys}
        self.optimiser.load_state_dict(held)
        self.step = int(state["step"])

    def _begin(self, raw: Tensor) -> None:
        with torch.no_grad():
            self.weights["scale"].copy_(raw.square().mean(dim=(0, 2)).sqrt().clamp_min(1e-12))
            if self.recipe.role != "difference":
                self.weights["decoder_bias"].copy_((raw / self.weights["scale"][:, None]).mean(0))

    def _loss(self, inputs: Tensor) -> tuple[Tensor, dict[str, float]]:
        w, r = self.weights, self.recipe
        pre = torch.einsum("nmd,mdw->nw", inputs - w["decoder_bias"], w["encoder"]) + w["encoder_bias"]
        positive = torch.relu(pre.float())
        kept = min(r.k * len(inputs), positive.numel())
        least = torch.topk(positive.detach().flatten(), kept, sorted=False).values.min()
        codes = positive * (positive >= least.clamp_min(1e-12))
        out = torch.einsum("nw,mwd->nmd", codes, w["decoder"]).float() + w["decoder_bias"]
        left = inputs - out
        loss = left.square().sum(dim=(1, 2)).mean() / self.d
        on = (codes > 0).any(0)
        with torch.no_grad():
            w["idle"].add_(len(inputs)).masked_fill_(on, 0)
            pace = 0.9 if self.step < 50 else 0.99
            w["threshold"].copy_(least if self.step == 0 else pace * w["threshold"] + (1 - pace) * least)
        dead = w["idle"] > r.dead_after
        if bool(dead.any()) and r.revive:
            loss = loss + r.revive * self._revival(positive, dead, left.detach())
        total = (inputs - inputs.mean(0)).square().sum()
        share = 1 - float(left.detach().square().sum() / total.clamp_min(1e-12))
        told = {
            "explained": share,
            "active": float((codes > 0).sum(1).float().mean()),
            "dead": float(dead.float().mean()),
        }
        return loss, told

    def _revival(self, positive: Tensor, dead: Tensor, left: Tensor) -> Tensor:
        """How badly the dead latents that come nearest to firing rebuild what the others left over."""
        count = min(int(dead.sum()), max(self.d // 2, 1))
        among = positive * dead
        values, places = torch.topk(among, count, dim=1)
        codes = torch.zeros_like(positive).scatter(1, places, values)
        out = torch.einsum("nw,mwd->nmd", codes, self.weights["decoder"]).float()
        return (left - out).square().sum(dim=(1, 2)).mean() / self.d

    def _project(self) -> None:
        """Take off the decoder's gradient what would only change the length of its rows."""
        decoder = self.weights["decoder"]
        assert decoder.grad is not None
        with torch.no_grad():
            along = (decoder.grad * decoder).sum(dim=(0, 2), keepdim=True)
            decoder.grad -= along * decoder

    def _pace(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.steps // 20))
        fall = min(1.0, (self.steps - self.step) / max(1, self.steps // 5))
        return warm * max(fall, 0.0)


def _norms(decoder: Tensor) -> Tensor:
    """Norm of each latent's rows, both models together, [1, width, 1]."""
    return decoder.square().sum(dim=(0, 2), keepdim=True).sqrt().clamp_min(1e-12)


def batches(chunk: Tensor, recipe: Recipe, *, number: int, start: int = 0) -> Iterator[Tensor]:
    """Batches of a chunk in seeded order, each token `passes` times; the tail that fills no batch is left.

    Args:
        chunk: [tokens, models, d].
        recipe: batch, passes and seed.
        number: of the chunk, which seeds its order.
        start: batches to leave out at the front.
    """
    size = len(chunk) // recipe.batch
    for count in range(start, size * recipe.passes):
        turn, place = divmod(count, size)
        generator = torch.Generator().manual_seed(hash((recipe.seed, number, turn)) % (1 << 63))
        if place == 0 or count == start:
            order = torch.randperm(len(chunk), generator=generator)
        yield chunk[order[place * recipe.batch : (place + 1) * recipe.batch]]

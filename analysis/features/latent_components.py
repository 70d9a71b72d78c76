"""Which weights changed a latent: the weight path of a latent's own code, component by component.

With it an account reads from weights to features to tax. A latent's code of the change is linear in the stream (least
squares on the decoders in use), so its gradient is one backward pass from the address down, and what the components
below did to it sums to its measured change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from taxlens.activations.hooks.hooks import reading
from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.feature_tables import FEATURES_COMPONENTS
from taxlens.analysis.features.give_back import ChangeCodes, SuiteStreams, coded_change, suite_streams
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import placed
from taxlens.analysis.path.quadrature import gauss_patterson
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import difference_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.features.feature_account import FeatureAccount

Tensor = torch.Tensor


def component_frame(
    pair: ModelPair,
    suite: Suite,
    account: FeatureAccount,
    latents: Sequence[int] | np.ndarray,
    *,
    items: int = 16,
    nodes: int = 7,
) -> pd.DataFrame:
    """Rows of features_components.csv: what each component's change did to some latents, items averaged.

    Args:
        pair: the two checkpoints; left as they are.
        suite: a suite of the account.
        account: whose dictionary and template are taken.
        latents: which; each costs one backward pass through the lower layers a node.
        items: most items, spread over the account's.
        nodes: on the path: 3, 7, 15 or 31.
    """
    found, dictionary = account.suites[suite.name], account.dictionary
    places = found.places[np.linspace(0, len(found.places) - 1, min(items, len(found.places))).round().astype(int)]
    own = suite.subset(sorted({int(p) for p in places}))
    address = Address(dictionary.site, dictionary.layer)
    streams = suite_streams(pair, own, address, template=account.template)
    rows = functionals(coded_change(streams, dictionary), latents, streams)
    measured = torch.einsum("lpd,pd->l", rows, (streams.aligned - streams.base).to(rows)).numpy() / len(own.items)
    effects, names, layers = _walked(pair, streams, address, rows, nodes)
    out = []
    for number, latent in enumerate(latents):
        change, whole = effects[number] / len(own.items), float(measured[number])
        rest = (change.sum() - whole) / abs(whole) if whole else np.nan
        for name, layer, value in zip(names, layers, change):
            if value != 0.0:
                share = float(value) / whole if whole else np.nan
                out.append(
                    (
                        suite.name,
                        account.template,
                        account.name,
                        str(int(latent)),
                        name,
                        int(layer),
                        float(value),
                        share,
                        rest,
                    )
                )
    return FEATURES_COMPONENTS.frame(out)


def functionals(codes: ChangeCodes, latents: Sequence[int] | np.ndarray, streams: SuiteStreams) -> Tensor:
    """The linear forms whose values on the change are the latents' codes, by position: float32 [latents, positions, d].

    Zero where a latent is not in use. Inputs that several rows share count once.
    """
    out = torch.zeros(len(latents), *streams.base.shape)
    start = 0
    for span in codes.spans:
        count, d = len(span.latents), streams.base.shape[1]
        u = span.directions.float()
        gram = u @ u.transpose(1, 2)
        size = gram.diagonal(dim1=1, dim2=2)
        ridge = torch.where(
            size > 0, 1e-6 * size.sum(1, keepdim=True) / (size > 0).sum(1, keepdim=True).clamp_min(1), 1.0
        )
        solved = torch.linalg.solve(gram + torch.diag_embed(ridge), u)
        at = codes.at[start : start + count]
        for number, latent in enumerate(latents):
            on = (span.latents == int(latent)).repeat(1, span.copies)
            out[number, at] = torch.einsum("tu,tud->td", on.to(solved), solved).reshape(count, d)
        start += count
    return out


def _walked(
    pair: ModelPair, streams: SuiteStreams, address: Address, rows: Tensor, nodes: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Effects of the components on each latent's summed code, float64 [latents, components], their names and layers."""
    rule, shard = gauss_patterson(nodes), streams.shard
    difference = difference_of(pair)
    units = difference.units("component")
    effects = np.zeros((len(rows), len(units)))
    with walk(pair) as path:
        contraction = Contraction(path.model, difference, ("component",), keep_tokens=False)
        anatomy = pair.base.anatomy if path.model is pair.base.model else pair.aligned.anatomy
        with contraction:
            for t, weight in zip(rule.nodes, rule.weights()):
                path.to(float(t))
                held: list[Tensor] = []
                with reading(path.model, anatomy, [address], lambda _a, x, held=held: held.append(x)):
                    for bundle, start in zip(shard.bundles, streams.starts):
                        held.clear()
                        forms = rows[:, start : start + bundle.ids.numel()]
                        contraction.batch = placed(bundle, 0)
                        with torch.enable_grad():
                            bundle.logits(path.model)
                            for number, form in enumerate(forms):
                                contraction.begin(len(shard.rows), shard.n_tokens)
                                code = (held[0] * form.reshape(held[0].shape).to(held[0])).sum()
                                torch.autograd.backward(code, retain_graph=number < len(forms) - 1)
                                effects[number] += (
                                    weight * contraction.finish()[0].units["component"].double().sum(0).numpy()
                                )
                        contraction.batch = None
    return effects, list(units), np.array([unit.layer for unit in units.values()])

"""Activations of both models at one site, as the arrays that a notebook works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from taxlens.activations.store.store import Store
from taxlens.core.errors import UsageError, explain, one_of

MODELS = ("base", "aligned")


@dataclass(frozen=True, slots=True, repr=False)
class LayerArrays:
    """Activations of both models at a site and one or several layers. Nothing is read before it is asked for.

    Args:
        store: the store.
        site: which site.
        layers: which layers.
        index: row numbers [n].
        single: whether one layer was asked for by its number, so that arrays have no layer axis.

    Example:
        >>> acts["resid_post", 7].to_numpy("base").shape            # doctest: +SKIP
        (512, 576)
    """

    store: Store
    site: str
    layers: tuple[int, ...]
    index: np.ndarray
    single: bool

    @property
    def rows(self) -> pd.DataFrame:
        """What each row is: suite, template, item, choice, kind, group, token, labels."""
        return self.store.rows.iloc[self.index].reset_index(drop=True)

    @property
    def base(self) -> np.ndarray:
        """The base's activations, as `to_numpy("base")`."""
        return self.to_numpy("base")

    @property
    def aligned(self) -> np.ndarray:
        """The aligned model's activations, as `to_numpy("aligned")`."""
        return self.to_numpy("aligned")

    def where(self, **wanted: object) -> LayerArrays:
        """Return the same for the rows whose columns hold the given values (`suite="facts", kind="prompt"`).

        Raises:
            UsageError: for a column that the rows lack.
        """
        chosen = np.intersect1d(self.index, self.store.select(**wanted))
        return LayerArrays(self.store, self.site, self.layers, chosen, self.single)

    def to_numpy(self, model: str = "both") -> np.ndarray:
        """Return float32 activations.

        Args:
            model: "base", "aligned" or "both".

        Returns:
            [row, d_model]; [row, head, d_head] at sites with heads. Several layers come first ([layer, row, ...]), and
            "both" comes before them, base first ([2, layer, row, ...]).

        Raises:
            UsageError: for another model.
            StoreError: if a block does not match its checksum.
        """
        one_of(model, (*MODELS, "both"), what="model")
        wanted = MODELS if model == "both" else (model,)
        found = [
            [self.store.read(self.site, layer, model=one, rows=self.index) for layer in self.layers] for one in wanted
        ]
        stacked = np.stack([each[0] if self.single else np.stack(each) for each in found])
        return stacked if model == "both" else stacked[0]

    def to_torch(self, model: str = "both") -> Any:
        """Return what `to_numpy` returns as a float32 tensor on the CPU."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.to_numpy(model)))

    def to_xarray(self) -> Any:
        """Return an xarray.DataArray [model, layer, row, d_model] whose `row` axis carries the rows' columns.

        Raises:
            UsageError: if xarray is not installed.
        """
        xarray = _library("xarray")
        values = self.to_numpy()
        values = values[:, None] if self.single else values
        last = ("head", "d_head") if values.ndim == 5 else (self._width_name,)
        columns = {name: ("row", column.to_numpy()) for name, column in self.rows.items()}
        axes = {"model": list(MODELS), "layer": list(self.layers)}
        return xarray.DataArray(values, dims=("model", "layer", "row", *last), coords=axes | columns, name=self.site)

    def to_anndata(self) -> Any:
        """Return an anndata.AnnData of one layer: X and layers["base"] the base, layers["aligned"] the aligned model.

        Raises:
            UsageError: if anndata is not installed, or several layers were asked for.
        """
        anndata = _library("anndata")
        if len(self.layers) > 1:
            rows = [("layers", ", ".join(map(str, self.layers)))]
            raise UsageError(explain("an AnnData holds one layer.", rows, f"acts[{self.site!r}, {self.layers[0]}]"))
        base, aligned = (one.reshape(len(self.index), -1) for one in (self.to_numpy("base"), self.to_numpy("aligned")))
        obs = self.rows.set_axis([str(k) for k in self.index], axis=0)
        obs = obs.apply(lambda column: column.astype(str) if column.dtype == object else column)
        address = {"site": self.site, "layer": self.layers[0]}
        return anndata.AnnData(base, obs=obs, layers={"base": base, "aligned": aligned}, uns=address)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.to_numpy()
        return values if dtype is None else values.astype(dtype)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        layers = str(self.layers[0]) if self.single else f"{len(self.layers)} layers"
        shape = ", ".join(map(str, (len(self.index), *self.store.shape(self.site))))
        return f"LayerArrays({self.site}, {layers}, both models, [{shape}] a model and layer)"

    @property
    def _width_name(self) -> str:
        return "d_mlp" if self.site.startswith("mlp_p") else "d_model"


def chosen_layers(store: Store, site: str, layers: int | slice | Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """Return the layers that an index names, and whether it names one by its number (negative from the end)."""
    held = store.layers(site)
    if isinstance(layers, slice):
        return tuple(held[layers]), False
    if isinstance(layers, (int, np.integer)):
        return (held[layers] if layers < 0 else int(layers),), True
    return tuple(int(one) for one in layers), False


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(explain(f"{name} is not installed.", (), f"pip install {name}")) from error

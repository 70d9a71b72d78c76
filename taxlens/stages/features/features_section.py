"""The options of the features: which dictionaries are read or trained, and what their accounts are judged by."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from taxlens.core.lazy import Lazy
from taxlens.core.vocabularies import RIVALS
from taxlens.stages.section import Count, Section, SiteName, registered

Rival = Annotated[str, registered(RIVALS, "rival of a dictionary")]
_METRICS = Lazy("taxlens.analysis.scoring.metrics:scored_metrics")
FeatureMetric = Annotated[str, registered(_METRICS, "metric of the features")]


class DictionaryEntry(Section):
    """A dictionary of features: a folder, or a hub id."""

    path: str = Field(min_length=1, description="folder of the dictionary, or hub id (owner/name/folder)")
    name: str = Field(default="", description="its name in tables; blank: the folder's")
    site: SiteName | None = Field(
        default=None, description="where it reads, if its files do not say; null: as they say"
    )
    layer: int | None = Field(default=None, ge=0, description="block, if its files do not say; null: as they say")


class DictionaryTraining(Section):
    """Dictionaries to train on the pair before they are read, and to keep in the run's folder."""

    corpus: tuple[str, ...] = Field(min_length=1, description="texts: .txt, .md, .jsonl or a folder saved by datasets")
    layers: tuple[int, ...] = Field(min_length=1, description="blocks after which the residual stream is read")
    role: Literal["difference", "sae", "crosscoder"] = Field(
        default="difference", description="aligned minus base, the base alone, or both at once"
    )
    width: int = Field(default=2048, ge=2, le=1_000_000, description="latents")
    k: int = Field(default=24, ge=1, description="latents active on a token, on average")
    tokens: int = Field(default=250_000, ge=1000, description="most tokens of the corpus")
    passes: int = Field(default=4, ge=1, le=1000, description="times that each token is trained on")
    batch: int = Field(default=1024, ge=2, description="tokens of a step")
    rate: float = Field(default=1e-3, gt=0, lt=1, description="step size of Adam")
    context: int = Field(default=128, ge=4, description="tokens of a window of text")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="one dictionary a seed and layer")
    autocast: bool = Field(default=False, description="multiply in bfloat16 while reading and training")


class FeaturesSection(Section):
    """Which dictionaries are read, and what their accounts are judged by."""

    engine_chooses: ClassVar[tuple[str, ...]] = ("batch_tokens",)

    dictionaries: tuple[DictionaryEntry, ...] = Field(default=(), description="dictionaries to read")
    train: DictionaryTraining | None = Field(default=None, description="dictionaries to train first; null: none")
    metrics: tuple[FeatureMetric, ...] = Field(
        default=("probability", "nll"), min_length=1, description="metrics of the tax; latents are ranked by the first"
    )
    suites: tuple[str, ...] | None = Field(default=None, description="suites; null: all of kind capability")
    reading: Literal["least_squares", "encoder", "preactivation"] = Field(
        default="least_squares", description="how a change is coded: on the decoders in use, or by differences of codes"
    )
    items: Literal["all"] | Count = Field(default="all", description="most items a suite")
    max_gradients: int = Field(default=15, ge=3, le=100_000, description="most gradients along the path")
    tolerance: float = Field(default=0.01, gt=0, lt=1, description="share of the tax within which effects have settled")
    leading: int = Field(default=20, ge=1, description="latents that are given back together")
    draws: int = Field(default=8, ge=0, le=1000, description="control sets; 0: no controls, no rivals")
    rivals: tuple[Rival, ...] = Field(
        default=("adl", "pca", "probe", "random_rank", "eigenvectors"), description="what is given back without latents"
    )
    cut: bool = Field(default=True, description="take the account at the cut beside the account of the path")
    components: int = Field(default=3, ge=0, description="leading latents whose change is traced to components")
    unaligned: tuple[str, ...] = Field(
        default=(),
        description="checkpoints or adapters tuned from the base without alignment; the leading latents must be quiet there",
    )
    listed: int = Field(default=40, ge=1, description="latents that tables list one by one")

    @model_validator(mode="after")
    def _something(self) -> FeaturesSection:
        names = [one.name or one.path for one in self.dictionaries]
        if len(set(names)) != len(names):
            raise ValueError("two dictionaries of one name")
        return self

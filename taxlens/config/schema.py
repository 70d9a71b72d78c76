"""The config of a run: frozen, checked, with every default stated and every wrong key answered by line."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from taxlens.config.yaml_file import line_of, parse_yaml, read_yaml
from taxlens.core.errors import ConfigError, explain

Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head_z", "mlp_post"]
Dtype = Literal["float32", "float16", "bfloat16"]
Template = Literal["plain", "chat"]
Metric = Literal["accuracy", "accuracy_norm", "probability", "margin", "nll"]
Order = Literal[
    "path", "one_gradient", "magnitude", "smallest", "random", "uniform", "per_layer", "learned_mask", "weight_patch",
    "checkpoint", "relearn", "reverse",
]  # fmt: skip
Format = Literal["items", "minimal_pairs", "true_false", "statements", "questions", "gaps"]
AttributedMetric = Literal["accuracy", "accuracy_norm", "probability", "margin", "nll", "kl"]
Method = Literal["path", "graft", "restore", "shapley", "patch_cause", "patch_carrier"]
STAGES = ("tax", "capture", "probe", "similarity", "attribute", "diagnose", "frontier", "figures", "report")
EMBEDDED_BENEFITS = ("demo:harm", "suite:refuse_harmful")
"""Embedded suites that are of kind "benefit" where a config does not say."""
Stage = Literal["tax", "capture", "probe", "similarity", "attribute", "diagnose", "frontier", "figures", "report"]


NAME = r"^[\w.-]*[\w-][\w.-]*$"
"""A name of a file or folder: letters, digits, ".", "-" and "_", and not of dots alone."""
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


class PairSection(_Section):
    """The two checkpoints: directories, hub ids or `demo:NAME`; or a base and a PEFT adapter. The last of a list counts."""

    base: str
    aligned: str | tuple[str, ...] | None = None
    adapter: str | tuple[str, ...] | None = None
    several: Literal["chain", "seeds"] = "chain"  # what a list is: checkpoints of one training, or seeds of one recipe
    gguf: str | None = None
    revision: str | None = None
    dtype: Dtype = "float32"
    device: str | dict[str, int | str] = "auto"  # auto, a device, balanced, or a map of modules to devices


class SuiteSection(_Section):
    """One suite: a JSON-lines or CSV file (relative to the config), `demo:NAME` or `suite:NAME`."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME)
    file: str
    kind: Literal["capability", "benefit"] = "capability"
    template: Template | None = None  # where it is attributed; by default the first of `templates`
    attribute: bool = True  # whether its tax is attributed
    format: Format = "items"  # how the file is laid out: taxlens's own items, or a shape of published benchmarks
    group_by: str | None = None  # of such a shape: the field that groups the items
    ask: str | None = None  # of true_false and questions: how it is asked, with {statement} or {question}
    letters: bool = False  # of questions: list the choices under letters and score the letters

    @model_validator(mode="before")
    @classmethod
    def _embedded_benefits_are_benefits(cls, values: Any) -> Any:
        if isinstance(values, dict) and "kind" not in values and values.get("file") in EMBEDDED_BENEFITS:
            return {**values, "kind": "benefit"}
        return values


class TaxSection(_Section):
    """How the tax is measured."""

    metrics: tuple[Metric, ...] = ("accuracy", "probability", "nll")
    bootstrap: int = Field(default=2000, ge=100, le=1_000_000)
    interval: Literal["percentile", "bca"] = "percentile"
    margin: float = Field(default=0.02, gt=0, lt=1)  # what counts as no tax, for metrics in 0..1
    prior: bool = False  # also the tax after PMI, and the shift of the choices' prior
    generate: tuple[str, ...] = ()  # suites to answer: exact match, refusals, length, KL by position
    generate_templates: tuple[Template, ...] | None = None  # by default the template in which a suite is attributed
    max_new_tokens: int = Field(default=32, ge=1, le=100_000)
    samples: int = Field(default=0, ge=0, le=10_000)  # continuations a prompt for versatility; 0: none


class CaptureSection(_Section):
    """Which activations are kept."""

    sites: tuple[Site, ...] = ("resid_post",)
    layers: Literal["all"] | tuple[int, ...] = "all"
    positions: str = "last"
    templates: tuple[Template, ...] | None = None  # by default the config's
    dtype: Dtype = "float32"
    batch_tokens: int = Field(default=4096, ge=1, le=2**30)
    compress: Literal["gzip"] | None = None
    shard_bytes: int = Field(
        default=256 * 2**20, ge=1
    )  # most bytes of one file of the store; parts end where files end


class ProbeSection(_Section):
    """Which labels are probed, and by what."""

    labels: Literal["all"] | tuple[str, ...] = "all"
    probe: Literal["ridge", "logistic", "diff_of_means", "mlp", "lda", "mdl"] = "ridge"
    permutations: int = Field(default=199, ge=0, le=100_000)
    heads: bool = True  # sites that have heads are read head by head too


class SimilaritySection(_Section):
    """Which measures of representation similarity are computed, and what is done with the directions found."""

    measures: tuple[str, ...] = ("cka", "procrustes", "linear_r2", "drift")
    map: tuple[str, ...] = ("cka",)  # measures of every base layer against every aligned layer; []: none
    map_rows: int = Field(default=4096, ge=4, le=2**20)  # most rows of a map
    heads: bool = True  # sites that have heads are compared head by head too
    spectra: bool = True
    name_directions: int = Field(default=3, ge=0, le=10_000)  # directions beyond the null to name, a spectrum and layer
    test_layers: int = Field(default=1, ge=0)  # layers whose directions are ablated in base, injected into aligned
    test_items: int = Field(default=64, ge=2)  # most items a suite of that test


class AttributionSection(_Section):
    """The weight path: metrics, levels, tolerance, and further methods by name."""

    metrics: tuple[AttributedMetric, ...] = ("accuracy", "probability", "nll")
    levels: tuple[Literal["component", "head", "neuron", "singular"], ...] = ("component", "head", "singular")
    tolerance: float = Field(default=0.01, gt=0, lt=1)
    max_gradients: int = Field(default=32, ge=2, le=100_000)
    items: Literal["all"] | Count = "all"
    methods: tuple[Method, ...] = ("path",)
    leading: int = Field(default=8, ge=1)  # components that the other methods are run on, by rank of the path
    controls: int = Field(default=4, ge=0)  # and random ones beside them
    batch_tokens: int = Field(default=1024, ge=1, le=2**30)  # most padded tokens of a batch
    recompute: bool = False  # blocks are recomputed in the backward pass: for prompts too long for the memory
    neurons: int = Field(default=32, ge=0)  # at level neuron: how many of each component stand alone; 0: all
    reading: int = Field(default=2, ge=0)  # singular triples a suite to read: what they write, what they read
    null_draws: int = Field(default=0, ge=0, le=10_000)  # attributions of shuffled changes of equal spectrum
    patches: int = Field(default=0, ge=0)  # components and heads to patch in both directions, and as many random ones
    screen: int = Field(default=0, ge=0)  # attribution patching of every part, checked by so many real patches; 0: none
    patch_items: int = Field(default=32, ge=2)  # most items a suite of patches and screen
    patch_positions: int = Field(default=8, ge=0)  # of the first component, patched position by position
    stitch: Literal["all"] | tuple[int, ...] = ()  # cuts of the restoration profile (0 to the number of layers)


class DiagnoseSection(_Section):
    """Where the state of a capability is read."""

    sites: tuple[Site, ...] = ("resid_post",)
    layers: Literal["auto", "all"] | tuple[int, ...] = "auto"  # auto: five, refined where the damage appears
    items: Literal["all"] | Count = "all"
    relearn: bool = True  # where a capability looks erased, see whether a little training brings it back


class SplitSection(_Section):
    """How items are split between choosing and measuring."""

    holdout: float = Field(default=0.5, gt=0, lt=1)
    disjoint: tuple[Literal["group", "gold"], ...] = ("group", "gold")


class FrontierSection(_Section):
    """Which plans are built and measured."""

    benefit: str | None = None
    against: str | None = None
    unit: Literal["component", "head", "singular"] = "singular"
    shares: tuple[Share, ...] = (0.01, 0.025, 0.05)
    draws: int = Field(default=20, ge=1, le=10_000)
    orders: tuple[Order, ...] = ("path", "one_gradient", "magnitude", "smallest", "random", "uniform")
    suites: tuple[str, ...] | None = None  # capability suites whose tax is to be returned; by default all that lost
    max_gradients: int | None = Field(default=None, ge=1)  # of its attribution; by default that section's
    draw_shares: tuple[Share, ...] | None = None  # shares at which random plans are drawn; by default all
    items: Literal["all"] | Count = "all"  # most held-out items a suite
    train_items: Literal["all"] | Count = "all"  # most items a suite that plans are chosen on
    leave_out: bool = True  # also choose without each suite and measure on it
    generate: int = Field(default=0, ge=0)  # prompts of each kind for the benefit by generation; 0: log-odds only
    keeps: tuple[Share, ...] = ()  # further shares of the benefit that path, one_gradient and per_layer plans must keep
    generate_plans: tuple[str, ...] | None = None  # plans answered by generation; by default path and one_gradient
    budget_minutes: float = Field(default=40.0, gt=0, le=1e6)


class FigureSection(_Section):
    """Where the figures will be printed."""

    venue: Literal["neurips", "iclr", "icml", "acl", "tmlr", "aaai"] = "neurips"
    width: Literal["column", "page"] = "page"


class Config(_Section):
    """A whole run, as resolved: what was given plus every default."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME)
    seed: int = Field(default=0, ge=0, lt=2**32)
    pair: PairSection
    suites: tuple[SuiteSection, ...] = Field(min_length=1)
    templates: tuple[Template, ...] = Field(default=("plain", "chat"), min_length=1)
    chat_template: str = "own"
    stages: tuple[Stage, ...] | None = None
    tax: TaxSection = TaxSection()
    capture: CaptureSection = CaptureSection()
    probes: ProbeSection = ProbeSection()
    similarity: SimilaritySection = SimilaritySection()
    attribution: AttributionSection = AttributionSection()
    diagnose: DiagnoseSection | None = None
    split: SplitSection = SplitSection()
    frontier: FrontierSection | None = None
    figures: FigureSection = FigureSection()

    @field_validator("suites")
    @classmethod
    def _names_are_unique(cls, suites: tuple[SuiteSection, ...]) -> tuple[SuiteSection, ...]:
        names = [suite.name for suite in suites]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"suite names must be unique; repeated: {', '.join(repeated)}")
        return suites

    @field_validator("stages", "templates")
    @classmethod
    def _are_named_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = sorted({name for name in names or () if (names or ()).count(name) > 1})
        if repeated:
            raise ValueError(f"each must stand once; repeated: {', '.join(repeated)}")
        return names

    @property
    def planned(self) -> tuple[str, ...]:
        """The stages that `taxlens run` does, in order: `stages`, or all that have what they need."""
        if self.stages is not None:
            return tuple(stage for stage in STAGES if stage in self.stages)
        skipped = {name for name in ("diagnose", "frontier") if getattr(self, name) is None}
        return tuple(stage for stage in STAGES if stage not in skipped)


def _fields(keys: Sequence[str | int]) -> list[str]:
    model: Any = Config
    for key in keys:
        if isinstance(key, int):
            continue
        field = model.model_fields.get(key) if hasattr(model, "model_fields") else None
        kinds = [] if field is None else [field.annotation, *typing.get_args(field.annotation)]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _told(error: ValidationError, path: Path | None) -> ConfigError:
    first = error.errors()[0]
    keys = list(first["loc"])
    dotted = ".".join(str(key) for key in keys)
    line = line_of(path, [k for k in keys if isinstance(k, str | int)]) if path else None
    where = f"{path}, line {line}" if line else str(path or "the given values")
    if first["type"] == "extra_forbidden":
        options = _fields(keys[:-1])
        near = difflib.get_close_matches(str(keys[-1]), options, n=1, cutoff=0.5)
        rows = [("where", where), ("key", dotted), ("known keys", ", ".join(options))]
        return ConfigError(explain(f"unknown config key {dotted!r}.", rows, f"{near[0]}" if near else None))
    rows = [
        ("where", where),
        ("key", dotted),
        ("got", repr(first.get("input"))[:120]),
        ("expected", first["msg"]),
    ]
    if first["type"] == "missing":
        rows = [("where", where), ("key", dotted), ("expected", "a value; it has no default")]
    return ConfigError(explain("the config cannot be used.", rows))


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `values` with each `key.sub=value` of `--set` applied (the value is read as YAML).

    Example:
        >>> apply_overrides({"tax": {"bootstrap": 2000}}, ["tax.bootstrap=500"])
        {'tax': {'bootstrap': 500}}
    """
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for override in overrides:
        dotted, sep, text = override.partition("=")
        if not sep or not dotted:
            raise ConfigError(explain("--set wants key=value.", [("got", override)], "--set tax.bootstrap=500"))
        *parents, last = dotted.strip().split(".")
        node = merged
        for parent in parents:
            child = node.get(parent)
            node[parent] = dict(child) if isinstance(child, dict) else {}
            node = node[parent]
        node[last] = parse_yaml(text, where=f"--set {override}")
    return merged


def build_config(values: dict[str, Any], *, path: Path | None = None) -> Config:
    """Return a checked config from plain values.

    Raises:
        ConfigError: unknown key or wrong type, with file, line and the nearest key.
    """
    if not isinstance(values, dict):
        raise ConfigError(explain("a config is a mapping.", [("where", path), ("got", type(values).__name__)]))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _told(error, path) from error


def load_config(path: Path | str, *, overrides: Sequence[str] = ()) -> Config:
    """Return the checked config of a YAML file, with `--set` overrides applied.

    Args:
        path: the YAML file.
        overrides: `key.sub=value` texts; the value is read as YAML.

    Raises:
        ConfigError: if the file cannot be read or a key or value is wrong.
    """
    path = Path(path)
    values = read_yaml(path)
    if not isinstance(values, dict):
        return build_config(values, path=path)
    return build_config(apply_overrides(values, overrides), path=path)


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of the config."""
    return Config.model_json_schema()

"""The config of a run: frozen, checked, with every default stated and every wrong key answered by line.

Each stage's section stands in the stage's own folder; the whole is made from `STAGES`.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from taxlens.config.yaml_file import line_of, parse_yaml, read_yaml
from taxlens.core.errors import ConfigError, explain
from taxlens.core.lazy import Lazy
from taxlens.core.vocabularies import SPLIT_KEYS, SUITE_KINDS
from taxlens.stages import STAGES
from taxlens.stages.section import ASKED_IN, Dtype, Section, Template, registered
from taxlens.stages.stage import Stage

Format = Annotated[str, registered(Lazy("taxlens.suites.formats:format_names"), "format of a suite")]
Skip = Literal["equal_choices", "too_long"]
EMBEDDED_BENEFITS = ("demo:harm", "suite:refuse_harmful")
"""Embedded suites that are of kind "benefit" where a config does not say."""
EMBEDDED_ANSWERED = ("suite:lookalikes", "suite:refuse_harmful")
"""Embedded suites that both models answer where a config does not say: a rate of refusals is one of answers."""
NAME = r"^[\w.-]*[\w-][\w.-]*$"
"""A name of a file or folder: letters, digits, ".", "-" and "_", and not of dots alone."""


class PairSection(Section):
    """The two checkpoints: directories, hub ids or `demo:NAME`; or a base and a PEFT adapter. The last of a list counts."""

    base: str = Field(description="demo:NAME, a directory, or a hub id")
    aligned: str | tuple[str, ...] | None = Field(
        default=None, description="the same, or a list of which the last counts"
    )
    adapter: str | tuple[str, ...] | None = Field(
        default=None, description="directory of a PEFT adapter on top of base, or a list of them"
    )
    several: Literal["chain", "seeds"] = Field(
        default="chain", description="what a list is: checkpoints of one training, or seeds of one recipe"
    )
    gguf: str | None = Field(default=None, description="file name inside the directory, for GGUF checkpoints")
    revision: str | None = Field(default=None, description="of a hub id")
    dtype: Dtype = Field(default="float32", description="type of the weights in memory")
    device: str | dict[str, int | str] = Field(
        default="auto", description="auto, a device, balanced (several GPUs), or a map of modules to devices"
    )


class SuiteSection(Section):
    """One suite: a JSON-lines or CSV file (relative to the config), `demo:NAME` or `suite:NAME`."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME, description="the suite's name in every table")
    file: str = Field(description="a JSON-lines or CSV file (relative to the config), demo:NAME or suite:NAME")
    kind: Annotated[str, registered(SUITE_KINDS, "kind of suite")] = Field(
        default="capability", description="what it measures"
    )
    template: Template | None = Field(
        default=None, description="template in which it is attributed; null: the first of templates"
    )
    attribute: bool = Field(default=True, description="whether its tax is attributed")
    format: Format = Field(default="items", description="how the file is laid out")
    group_by: str | None = Field(default=None, description="field that groups the items, of a published format")
    ask: str | None = Field(
        default=None, description="of true_false and questions: how it is asked, with {statement} or {question}"
    )
    letters: bool = Field(default=False, description="of questions: list the choices under letters and score these")
    first_answer: Literal[0, 1] | None = Field(
        default=None,
        description="of questions: number of the first choice in numbered answers; null: 0, and asked if unclear",
    )
    fields: dict[str, str] = Field(
        default={},
        description="of a published format: usual field name (question, choices, answer, ...) -> name in the file",
    )
    skip: tuple[Skip, ...] = Field(
        default=(), description="items that are left out and counted: with two equal choices, longer than a model reads"
    )
    generate: bool | None = Field(
        default=None,
        description="whether both models answer it: refusals, exact match, versatility, tokens and time; null: "
        "tax.generate_items of its items, for the bill alone",
    )
    answers: bool = Field(
        default=False,
        description="whether both models' own answers (generated) are suites too: NAME.base_answers and "
        "NAME.aligned_answers are scored, captured and attributed",
    )

    @model_validator(mode="before")
    @classmethod
    def _embedded_suites_are_what_they_are(cls, values: Any) -> Any:
        if isinstance(values, dict) and "kind" not in values and values.get("file") in EMBEDDED_BENEFITS:
            values = {**values, "kind": "benefit"}
        if isinstance(values, dict) and "generate" not in values and values.get("file") in EMBEDDED_ANSWERED:
            values = {**values, "generate": True}
        return values


class SplitSection(Section):
    """How items are split between choosing and measuring."""

    holdout: float = Field(default=0.5, gt=0, lt=1, description="share of the items that plans are measured on")
    disjoint: tuple[Annotated[str, registered(SPLIT_KEYS, "split key")], ...] = Field(
        default=("group", "gold"), description="what both halves must not share"
    )


class AskingSection(Section):
    """How both models are asked in chat, beyond their templates."""

    model_config = ConfigDict(str_strip_whitespace=False)  # a space at the end of an answer's beginning is part of it

    system: str = Field(default="", description="system text before each question that has none of its own")
    thinking: bool | None = Field(
        default=None, description="whether templates that know enable_thinking let the model think; null: their default"
    )
    date: str = Field(
        default="",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        description="day that templates write, as 2024-07-26; blank: today",
    )
    answer_prefix: str = Field(default="", description="how each answer begins, after the assistant's turn is opened")


class ExecutorSection(Section):
    """Who does the work of tax, capture, attribute, diagnose, features and frontier: one process, or several workers."""

    kind: Literal["local", "ray", "slurm"] = Field(
        default="local", description="processes of this machine, actors of a Ray cluster, or jobs of a Slurm queue"
    )
    workers: int = Field(default=1, ge=1, le=10_000, description="how many workers; each loads the pair")
    threads: int = Field(default=1, ge=1, le=1024, description="threads of a worker's array work")
    cpus: int = Field(default=1, ge=1, le=1024, description="processors that Ray or Slurm sets aside for a worker")
    gpus: int = Field(default=0, ge=0, le=64, description="GPUs that Ray or Slurm sets aside for a worker")
    retries: int = Field(default=3, ge=0, le=100, description="how often a piece is tried again whose worker died")
    scratch: str | None = Field(
        default=None, description="folder that all workers see, for finished pieces; null: beside the run folder"
    )
    address: str = Field(default="", description="of a Ray cluster, or auto; blank: one on this machine")
    cluster: Literal["slurm", "local"] = Field(
        default="slurm", description="of Slurm: the queue, or processes of this machine for a try"
    )
    options: dict[str, str | int | float] = Field(
        default={}, description="of Slurm: further options of submitit, such as slurm_partition or timeout_min"
    )


class ConfigHead(Section):
    """What a config says beside the stages' sections: the pair, the suites, the templates, and which stages are done."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME, description="name of the run and of its folder")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of everything that is drawn")
    pair: PairSection = Field(description="the two checkpoints")
    suites: tuple[SuiteSection, ...] = Field(min_length=1, description="the suites")
    templates: tuple[Template, ...] = Field(
        default=ASKED_IN, min_length=1, description="prompt templates in which the tax is measured"
    )
    chat_template: str = Field(default="own", description="own, aligned, or a file")
    asking: AskingSection = Field(default=AskingSection(), description="how both models are asked in chat")
    stages: tuple[str, ...] | None = Field(
        default=None, description="which stages `taxlens run` does; null: all that the config names"
    )
    split: SplitSection = Field(default=SplitSection(), description="how items are split for the frontier")
    executor: ExecutorSection = Field(default=ExecutorSection(), description="who does the work")

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

    @field_validator("stages")
    @classmethod
    def _stages_exist(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = [stage.name for stage in STAGES]
        for name in names or ():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ValueError(f"one of {', '.join(known)}{f'; did you mean {near[0]}?' if near else ''}")
        return names

    def of(self, stage: Stage) -> Any:
        """The section of a stage, whole defaults where the config does not name it."""
        given = getattr(self, stage.key, None) if stage.key else None
        return stage.section() if given is None else given

    @property
    def planned(self) -> tuple[str, ...]:
        """The stages that `taxlens run` does, in order: `stages`, or all that are always done or have their key."""
        if self.stages is not None:
            return tuple(stage.name for stage in STAGES if stage.name in self.stages)
        return tuple(s.name for s in STAGES if s.always or getattr(self, s.key, None) is not None)


def _section_fields(stages: Sequence[Stage]) -> dict[str, Any]:
    fields = {}
    for stage in (one for one in stages if one.key):
        default = stage.section() if stage.always else None
        kind = stage.section if stage.always else stage.section | None
        fields[stage.key] = (kind, Field(default=default, description=stage.section.__doc__))
    return fields


if typing.TYPE_CHECKING:
    Config = ConfigHead
else:
    Config = create_model(
        "Config",
        __base__=ConfigHead,
        __doc__="A whole run, as resolved: what was given plus every default.",
        **_section_fields(STAGES),
    )


def _section_at(keys: Sequence[str | int]) -> type[BaseModel] | None:
    """The class of the section that keys lead to."""
    model: type[BaseModel] | None = Config
    for key in (one for one in keys if not isinstance(one, int)):
        field = model.model_fields.get(key) if model is not None else None
        kinds = [] if field is None else [field.annotation, *typing.get_args(field.annotation)]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return model


_EXPECTED = {
    "int_parsing": "a whole number", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_parsing": "a number", "float_type": "a number", "finite_number": "a finite number",
    "bool_parsing": "true or false", "bool_type": "true or false", "string_type": "a text",
    "tuple_type": "a list", "list_type": "a list", "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values", "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}", "less_than_equal": "at most {le}", "literal_error": "one of {expected}",
    "too_short": "at least {min_length}", "string_too_short": "at least {min_length} letters",
    "string_too_long": "at most {max_length} letters",
}  # fmt: skip


def _expected(first: Any) -> str:
    """What a value should be, in plain words."""
    words = _EXPECTED.get(first["type"])
    return words.format(**first.get("ctx", {})) if words else str(first["msg"])


def _told(error: ValidationError, path: Path | None, overrides: Sequence[str] = ()) -> ConfigError:
    first = error.errors()[0]
    keys = list(first["loc"])
    dotted = ".".join(str(key) for key in keys)
    line = line_of(path, [k for k in keys if isinstance(k, str | int)]) if path else None
    where = f"{path}, line {line}" if line else str(path or "the given values")
    given = [text for text in overrides if dotted.startswith(text.partition("=")[0].strip())]
    where = f"--set {given[-1]}" if given else where
    if first["type"] == "extra_forbidden":
        section = _section_at(keys[:-1])
        if keys[-1] in getattr(section, "engine_chooses", ()):
            title = f"{dotted!r} is no option any more: the engine chooses it."
            return ConfigError(
                explain(title, [("where", where), ("got", repr(first.get("input"))[:120])], "take it out.")
            )
        options = list(section.model_fields) if section is not None else []
        near = difflib.get_close_matches(str(keys[-1]), options, n=1, cutoff=0.5)
        rows = [("where", where), ("key", dotted), ("known keys", ", ".join(options))]
        return ConfigError(explain(f"unknown config key {dotted!r}.", rows, f"{near[0]}" if near else None))
    rows = [
        ("where", where),
        ("key", dotted),
        ("got", repr(first.get("input"))[:120]),
        ("expected", _expected(first)),
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


def stored_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a run folder keeps, without keys of earlier versions whose value the engine now chooses."""
    former = {stage.key: stage.section.engine_chooses for stage in STAGES if stage.key}
    return {
        key: {name: one for name, one in value.items() if name not in former.get(key, ())}
        if isinstance(value, dict)
        else value
        for key, value in values.items()
    }


def build_config(values: dict[str, Any], *, path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Return a checked config from plain values.

    Args:
        values: the config.
        path: the file that it is from, for errors.
        overrides: `key=value` texts that are in the values already: an error of such a key names them.

    Raises:
        ConfigError: unknown key or wrong type, with file, line and the nearest key.
    """
    if not isinstance(values, dict):
        raise ConfigError(explain("a config is a mapping.", [("where", path), ("got", type(values).__name__)]))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _told(error, path, overrides) from error


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
    return build_config(apply_overrides(values, overrides), path=path, overrides=overrides)


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of the config."""
    return Config.model_json_schema()

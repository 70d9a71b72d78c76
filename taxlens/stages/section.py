"""A section of the config: frozen, checked, every key described; and the words that several sections share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.lazy import Lazy
from taxlens.core.vocabularies import DTYPES, PLAN_UNITS, TEMPLATES


@dataclass(frozen=True, slots=True)
class RegisteredName:
    """A check that a value is a name of a registry, which is imported when a value is checked.

    Args:
        names: gives the names, or these.
        what: what is being chosen.
    """

    names: Lazy | tuple[str, ...]
    what: str

    @property
    def known(self) -> tuple[str, ...]:
        """The names as they are now."""
        return self.names if isinstance(self.names, tuple) else tuple(self.names())

    def __call__(self, value: str) -> str:
        try:
            return one_of(value, self.known, what=self.what)
        except UsageError as error:
            raise ValueError(str(error)) from error


def registered(names: Lazy | tuple[str, ...], what: str) -> AfterValidator:
    """Return the check of a field that a value is a name of a registry (see `RegisteredName`)."""
    return AfterValidator(RegisteredName(names, what))


SiteName = Annotated[str, registered(Lazy("taxlens.activations.hooks.site_registry:site_names"), "site")]
Dtype = Annotated[str, registered(DTYPES, "dtype")]
Template = Annotated[str, registered(TEMPLATES, "template")]
PlanUnit = Annotated[str, registered(PLAN_UNITS, "unit")]
ASKED_IN = TEMPLATES
"""Templates in which a config or a notebook asks that does not say."""
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Place = Annotated[int, Field(ge=0, le=10**6)]


class Section(BaseModel):
    """Base of sections: a key that is not declared is refused, and so are infinities."""

    engine_chooses: ClassVar[tuple[str, ...]] = ()
    """Keys of earlier versions whose value the engine now chooses: refused in a config, passed over in an old run."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


def _keywords(engines: Sequence[Callable[..., Any]]) -> list[str]:
    """Names of all options that engines take by keyword alone, each once."""
    parameters = [one for engine in engines for one in inspect.signature(engine).parameters.values()]
    return list(dict.fromkeys(one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY))


def arguments(section: Section, engine: Callable[..., Any], *, leave: Collection[str] = ()) -> dict[str, Any]:
    """Return the options of a section that an engine takes by the same name.

    Args:
        section: the options.
        engine: a function.
        leave: names to leave out.
    """
    takes = inspect.signature(engine).parameters
    return {name: value for name, value in section if name in takes and name not in leave}


def asked(kind: type[Section], given: Mapping[str, Any], *engines: Callable[..., Any]) -> dict[str, Any]:
    """Return what a notebook asks an engine for: the section's options with their defaults, and the engine's own.

    So the defaults of a notebook are those of a config, and both are checked alike.

    Args:
        kind: the section's class.
        given: options by name.
        engines: a function, and the class of its options where these are one.

    Raises:
        UsageError: neither the section nor the engine knows an option, or its value is none.
    """
    takes = _keywords(engines)
    shared = [name for name in kind.model_fields if name in takes]
    for name in given:
        one_of(name, [*shared, *(other for other in takes if other not in shared)], what="option")
    try:
        section = kind(**{name: value for name, value in given.items() if name in shared})
    except ValidationError as error:
        first = error.errors()[0]
        rows = [
            ("option", ".".join(map(str, first["loc"]))),
            ("got", repr(first["input"])[:120]),
            ("expected", first["msg"]),
        ]
        raise UsageError(explain("an option cannot be used.", rows)) from error
    return {name: getattr(section, name) for name in shared} | {n: v for n, v in given.items() if n not in shared}

"""Checks before anything is loaded: every name and number of the config against what it must be one of."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from taxlens.config.schema import Config
from taxlens.config.yaml_file import line_of
from taxlens.core.errors import ConfigError, TaxlensError, explain
from taxlens.core.json_text import read_json
from taxlens.inputs.resolve import resolve_model, section_suite
from taxlens.stages import STAGES

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite

_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


class CheckContext:
    """What a stage's check may ask of a run: its config, its suites, how many blocks the base has; no weights.

    Args:
        config: the config.
        root: the folder that its relative paths start from.
        source: its file, where there is one: errors name the line.
    """

    def __init__(self, config: Config, root: Path | str, *, source: Path | None = None) -> None:
        self.config, self.root, self.source = config, Path(root), source

    @cached_property
    def suites(self) -> dict[str, Suite]:
        """The suites by name, read and checked."""
        return {one.name: section_suite(one, self.root) for one in self.config.suites}

    def suite_names(self, kind: str | None = None) -> list[str]:
        """Names of the suites, or of those of a kind."""
        return [suite.name for suite in self.config.suites if kind in (None, suite.kind)]

    @cached_property
    def depth(self) -> int | None:
        """How many blocks the base has by its config.json; None where that does not say or is not here."""
        try:
            path = Path(resolve_model(self.config.pair.base, self.root)) / "config.json"
            said = read_json(path, title="config.json cannot be read.")
        except TaxlensError:
            return None
        return next((said[key] for key in _DEPTHS if isinstance(said.get(key), int)), None)

    def each_of(self, key: str, values: Iterable[str], options: Collection[str], *, what: str) -> None:
        """Refuse a name under a key of the config that is none of the options.

        Raises:
            ConfigError: naming the key, the line, the options and the nearest of them.
        """
        for place, value in enumerate(values):
            if value not in options:
                near = difflib.get_close_matches(str(value), list(options), n=1, cutoff=0.5)
                rows = [("must be one of", ", ".join(options) or "nothing: there is none")]
                self.refuse(key, f"unknown {what} {value!r}.", rows, near[0] if near else None, place=place)

    def layers(self, key: str, values: object, *, extra: int = 0) -> None:
        """Refuse block numbers that the base does not have (`extra` beyond the last are allowed).

        Raises:
            ConfigError: naming the key, the line and the range.
        """
        if isinstance(values, str) or not isinstance(values, Sequence) or self.depth is None:
            return
        for place, layer in enumerate(values):
            if not -self.depth <= layer < self.depth + extra:
                rows = [("got", layer), ("must be", f"0 to {self.depth - 1 + extra}")]
                self.refuse(key, "a layer is out of range.", rows, place=place)

    def refuse(
        self,
        key: str,
        title: str,
        rows: Iterable[tuple[str, object]],
        fix: str | None = None,
        *,
        place: int | None = None,
    ) -> None:
        """Raise the error of a key.

        Raises:
            ConfigError: always.
        """
        keys: list[str | int] = [*key.split("."), *([] if place is None else [place])]
        line = line_of(self.source, keys) if self.source is not None else None
        where = f"{self.source}, line {line}" if line else str(self.source or "the run's config")
        raise ConfigError(explain(title, [("where", where), ("key", key), *rows], fix))


def check_stages(context: CheckContext, wanted: Sequence[str], *, ended: Collection[str] = ()) -> None:
    """Run the checks of the stages that will be done, and see that what each needs is there or done before.

    Args:
        context: the config and its suites.
        wanted: names of the stages, in order.
        ended: stages that ended well before.

    Raises:
        ConfigError: a name, number or stage cannot be met.
        ItemError: a suite that a check had to read cannot be used.
    """
    for stage in (stage for stage in STAGES if stage.name in wanted):
        missing = [name for name in stage.needs if name not in wanted and name not in ended]
        if missing:
            rows = [("needs", ", ".join(missing)), ("will be done", ", ".join(wanted))]
            fix = f"taxlens {missing[0]} first, or stages: [{', '.join([*missing, stage.name])}]"
            raise ConfigError(explain(f"stage {stage.name} needs what was not done.", rows, fix))
        if stage.check is not None:
            stage.check(context, context.config.of(stage))

"""Every key of every section, set to another value than its default, arrives at the engine that it is for."""

import inspect
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from taxlens.analysis.answers.answer_tables import ANSWERS, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.interventions.effect_tables import PATCHES, RESTORATION, SCREEN
from taxlens.analysis.readings.reading_tables import ATTRIBUTION_NULL
from taxlens.analysis.state.state_tables import EVIDENCE, STATES
from taxlens.analysis.tax.tax_tables import PRIOR, TAX
from taxlens.config.schema import build_config
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.stages import STAGES
from taxlens.stages.probe.probe_tables import PROBE_DROP, PROBES
from taxlens.stages.similarity.similarity_tables import (
    DIRECTION_EFFECTS,
    DIRECTIONS,
    DRIFT_POSITIONS,
    SIMILARITY,
    SPECTRA,
)

VALUES = {
    "tax": {
        "metrics": ("nll", "margin"), "bootstrap": 123, "interval": "bca", "margin": 0.07, "prior": True,
        "generate": ("facts",), "generate_templates": ("chat",), "max_new_tokens": 9, "samples": 3,
    },
    "capture": {
        "sites": ("mlp_out", "attn_out"), "layers": (1, 2), "positions": "mean", "templates": ("chat",), "dtype": "float16",
        "compress": "gzip", "shard_bytes": 4321,
    },
    "probes": {"labels": ("relation",), "probe": "lda", "permutations": 17},
    "similarity": {
        "measures": ("gulp",), "map": ("procrustes",), "spectra": False,
        "name_directions": 5, "test_layers": 2,
    },
    "attribution": {
        "metrics": ("nll", "margin"), "levels": ("component", "singular"), "tolerance": 0.3, "max_gradients": 3, "items": 4,
        "methods": ("path", "graft"), "recompute": True, "reading": 8, "null_draws": 10, "patches": 11, "screen": 12,
        "stitch": (1, 3),
    },
    "diagnose": {"layers": (1,), "items": 77, "relearn": "always"},
    "frontier": {
        "benefit": "harm", "against": "harmless", "unit": "head", "shares": (0.3,), "draws": 3, "orders": ("path", "reverse"),
        "suites": ("facts",), "max_gradients": 9, "draw_shares": (0.3,), "items": 55, "train_items": 66, "leave_out": False,
        "generate": 4, "keeps": (0.8,), "generate_plans": ("path-30%",), "budget_minutes": 7.0,
    },
    "figures": {"venue": "acl", "width": "column", "which": "all"},
    "lens": {"items": 10},
}  # fmt: skip
ELSEWHERE = {"features", "edit"}
"""Stages whose engines need dictionaries or training: of these it is seen that every option is read."""


class Table:
    """Stands for a result: its table is the one that was asked for, and empty."""

    def __init__(self, table):
        self.table = table

    def to_frame(self, **_):
        return self.table.frame([])


class Restored(Table):
    def to_frame(self, **_):
        return RESTORATION.frame([]).drop(columns="template")


class Diagnosed(Table):
    def evidence_frame(self):
        return EVIDENCE.frame([])

    def steerings(self):
        return {}


class Alike(SimpleNamespace):
    def directions(self, *_, **options):
        return []


class DoneError(Exception):
    """The engine was reached; there is nothing to see after it."""


def stop(*_, **__):
    raise DoneError


PROBED = SimpleNamespace(probes=PROBES.frame([]), drops=PROBE_DROP.frame([]), save=lambda folder: [])
ALIKE = Alike(
    similarity=SIMILARITY.frame([]), spectra=SPECTRA.frame([]), positions=DRIFT_POSITIONS.frame([]),
    names=DIRECTIONS.frame([]), found={("plain", "resid_post"): None}, centres={},
)  # fmt: skip
OTHER = SimpleNamespace(
    tax=TAX.frame([]), costs=COSTS.frame([]), divergence=DIVERGENCE.frame([]), answers=ANSWERS.frame([]),
    surrogate=SURROGATE.frame([]),
)  # fmt: skip
CAPTURED = SimpleNamespace(manifest={"self_check": {}}, close=lambda: None)
A = "taxlens.analysis."
ENGINES = {
    "tax": {
        f"{A}tax.tax:measure_tax": None, f"{A}tax.surface_form:measure_prior": Table(PRIOR),
        f"{A}answers.taxes:measure_other_taxes": OTHER,
    },
    "capture": {"taxlens.activations.capture.capture:capture": CAPTURED},
    "probe": {"taxlens.stages.probe.probe_run:probe_store": PROBED},
    "similarity": {
        "taxlens.stages.similarity.store_similarity:similarity_store": ALIKE,
        "taxlens.stages.similarity.direction_tests:direction_test": DIRECTION_EFFECTS.frame([]),
    },
    "attribute": {
        f"{A}path.attribute:attribute": None, f"{A}interventions.methods:swap_tables": {},
        f"{A}readings.triple_tables:reading_tables": {}, f"{A}readings.significance:null_effects": [],
        f"{A}readings.significance:null_frame": ATTRIBUTION_NULL.frame([]),
        f"{A}interventions.patch_table:chosen_patches": [], f"{A}interventions.patch_table:patch_table": PATCHES.frame([]),
        f"{A}interventions.attribution_patching:attribution_patch": Table(SCREEN),
        f"{A}interventions.stitching:stitched_profile": Restored(RESTORATION),
    },
    "diagnose": {f"{A}state.diagnoses:diagnose_suites": Diagnosed(STATES)},
    "frontier": {f"{A}frontier.measure:frontier": stop},
    "figures": {"taxlens.stages.figures.drawing:draw_run": []},
    "lens": {f"{A}readings.logit_lens:logit_lens": stop},
}  # fmt: skip
"""By stage, what is called with its options; None: really called, else what it gives."""
NAMED = {
    "prior": "measure_prior", "spectra": "similarity_store", "heads": "probe_store similarity_store", "items": "logit_lens",
}  # fmt: skip
"""Options that are seen by which engine was called, or by the size of what it was given."""


SEEN = {
    ("tax", "generate"): lambda calls: [suite.name for suite, _ in calls["measure_other_taxes"]["suites"]] == ["facts"],
    ("tax", "generate_templates"): lambda calls: calls["measure_other_taxes"]["suites"][0][1] == "chat",
    ("lens", "items"): lambda calls: max(len(suite) for suite in calls["logit_lens"]["suites"]) == 10,
}
"""Options that choose what is handed over, and how that shows in the calls by the engine's name."""


@pytest.fixture
def calls(monkeypatch):
    import importlib

    found = []
    for place, gives in {place: gives for stage in ENGINES.values() for place, gives in stage.items()}.items():
        module, name = place.split(":")
        home = importlib.import_module(module)
        real = getattr(home, name)

        def engine(*arguments, _real=real, _gives=gives, _name=name, **options):
            bound = inspect.signature(_real).bind(*arguments, **options).arguments
            more = (
                bound.pop("more", {}) | bound.pop("options", {}) if _name != "frontier" else dict(bound.pop("more", {}))
            )
            found.append((_name, bound | more))
            if _gives is None:
                return _real(*arguments, **options)
            if _gives is stop:
                raise DoneError
            return _gives.copy() if isinstance(_gives, pd.DataFrame) else _gives

        engine.__signature__ = inspect.signature(real)
        monkeypatch.setattr(home, name, engine)
    return found


@pytest.fixture(scope="module")
def values():
    suites = [{"name": name, "file": f"demo:{name}"} for name in ("facts", "harmless", "harm")]
    pair = {"base": "demo:base", "aligned": "demo:planted"}
    return {"name": "small", "pair": pair, "suites": suites, "templates": ["plain"], "seed": 5, **VALUES}


def arrived(field, value, calls):
    """Whether a value was handed over: under its own name, or, where no other option has it, under any."""
    given = [(name, key, got) for name, bound in calls for key, got in bound.items()]
    if isinstance(value, bool):
        return any(key == field and got == value for _, key, got in given) or any(
            name in NAMED.get(field, "").split() for name, _, _ in given
        )
    return any(_same(got, value) for _, _, got in given)


def _same(got, value):
    if isinstance(value, tuple):
        return isinstance(got, (tuple, list)) and list(got) in (list(value), [one for one in value if one != "path"])
    return type(got) is type(value) and got == value


@pytest.mark.parametrize(
    "stage", [s for s in STAGES if s.key and s.name not in ELSEWHERE], ids=lambda stage: stage.name
)
def test_every_key_arrives_at_its_engine(stage, values, calls, tmp_path, monkeypatch):
    section = stage.section(**VALUES[stage.key])
    assert set(VALUES[stage.key]) == set(stage.section.model_fields), "a key without a value of its own in this test"
    for name, field in stage.section.model_fields.items():
        assert getattr(section, name) != field.default, f"{name} is set to its default"
    job = RunContext(Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path))
    monkeypatch.setattr(RunContext, "open_store", contextmanager(lambda self: iter([None])))
    job.suites = {name: suite.subset(range(0, len(suite), 8)) for name, suite in job.suites.items()}
    with suppress(DoneError):
        stage.compute(job, section)
    for name, value in VALUES[stage.key].items():
        if (stage.name, name) in SEEN:
            assert SEEN[stage.name, name](dict(calls)), name
        else:
            assert arrived(name, value, calls), (
                f"{stage.key}.{name} = {value!r} reached none of {[n for n, _ in calls]}"
            )


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_every_key_is_read_by_its_stage(name):
    stage = next(stage for stage in STAGES if stage.name == name)
    folder = Path(inspect.getfile(stage.compute.load())).parent
    code = "".join(
        path.read_text(encoding="utf-8") for path in folder.glob("*.py") if not path.stem.endswith("_section")
    )
    for key in stage.section.model_fields:
        assert f"section.{key}" in code or "dict(section)" in code or "arguments(section" in code, key

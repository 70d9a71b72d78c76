"""Every key of every section, set to another value than its default, arrives at the engine that it is for."""

import inspect
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pandas as pd
import pytest

from taxlens.analysis.answers.answer_tables import ANSWERS, COSTS, DIVERGENCE, SURROGATE
from taxlens.analysis.editors.editor_tables import EDITOR_SETTINGS, EDITORS_TABLE
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
    ACTIVATION_PLANE,
    DIRECTION_EFFECTS,
    DIRECTIONS,
    DRIFT_POSITIONS,
    REFUSAL_DIRECTION,
    REFUSAL_PROJECTIONS,
    SIMILARITY,
    SPECTRA,
)

VALUES = {
    "tax": {
        "metrics": ("nll", "margin"), "bootstrap": 123, "interval": "bca", "margin": 0.07, "prior": True,
        "generate": ("facts",), "generate_templates": ("chat",), "max_new_tokens": 9, "samples": 3,
        "generate_items": 5, "judge_address": "http://localhost:1/v1", "judge_model": "judge",
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
    "features": {
        "dictionaries": ({"path": "held", "name": "mine", "site": "resid_mid", "layer": 1},), "train": {
            "corpus": ("texts.txt",), "layers": (1,), "role": "sae", "width": 33, "k": 7, "tokens": 1234, "passes": 5, "batch": 77,
            "rate": 0.02, "context": 55, "seeds": (3, 4), "autocast": True,
        },
        "metrics": ("margin",), "suites": ("facts",), "reading": "encoder", "items": 9, "max_gradients": 21, "tolerance": 0.4,
        "leading": 6, "draws": 2, "rivals": ("pca",), "cut": False, "components": 5, "listed": 44,
        "unaligned": ("demo:rlhf",),
    },
    "edit": {
        "harm": "harm", "harmless": "harmless", "suites": ("facts",), "editors": ("repair",), "tries": 2, "search": 66, "keep": {"harm": 0.77},
        "returned": 0.66, "kl": 0.55, "certified": True, "unit": "head", "items": 33, "train_items": 44, "generate": 128,
    },
}  # fmt: skip


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
    surrogate=SURROGATE.frame([]), said={},
)  # fmt: skip
COMPARED = SimpleNamespace(to_frame=lambda: EDITORS_TABLE.frame([]), fronts_frame=lambda: EDITOR_SETTINGS.frame([]))
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
        "taxlens.stages.similarity.planes:refusal_tables": (REFUSAL_PROJECTIONS.frame([]), REFUSAL_DIRECTION.frame([])),
        "taxlens.stages.similarity.planes:activation_plane": ACTIVATION_PLANE.frame([]),
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
    "features": {
        "taxlens.stages.features.features_run:read_entries": {}, f"{A}features.feature_report:report_features": stop,
        "taxlens.stages.features.features_training:train_missing": {},
    },
    "edit": {
        f"{A}editors.task:edit_task": SimpleNamespace(suites=(), taxed=()), f"{A}editors.held_out:HeldOutMeasure": None,
        f"{A}editors.compare:compare_editors": COMPARED, f"{A}editors.choice:recommend": stop,
    },
}  # fmt: skip
"""By stage, what is called with its options; None: really called, else what it gives."""
NAMED = {
    "prior": "measure_prior", "spectra": "similarity_store", "heads": "probe_store similarity_store", "items": "logit_lens",
}  # fmt: skip
"""Options that are seen by which engine was called, or by the size of what it was given."""


SEEN = {
    ("tax", "generate"): lambda calls: [suite.name for suite, _ in calls["measure_other_taxes"]["suites"]] == ["facts"],
    ("tax", "generate_items"): lambda calls: {len(suite) for suite, _ in calls["measure_other_taxes"]["brief"]} == {5},
    ("tax", "judge_address"): lambda calls: calls["measure_other_taxes"]["judge"].address == "http://localhost:1/v1",
    ("tax", "judge_model"): lambda calls: calls["measure_other_taxes"]["judge"].model == "judge",
    ("tax", "generate_templates"): lambda calls: calls["measure_other_taxes"]["suites"][0][1] == "chat",
    ("features", "suites"): lambda calls: [suite.name for suite in calls["report_features"]["suites"]] == ["facts"],
    ("features", "dictionaries"): lambda calls: (
        [(one.path, one.name, one.site, one.layer) for one in calls["read_entries"]["entries"]]
        == [("held", "mine", "resid_mid", 1)]
    ),
    ("features", "unaligned"): lambda calls: list(calls["report_features"]["unaligned"]) == ["demo:rlhf"],
    ("features", "train"): lambda calls: calls["train_missing"]["section"].width == 33,
    ("edit", "keep"): lambda calls: (
        calls["compare_editors"]["keep"] == 0.77 and calls["recommend"]["constraints"].keep == {"harm": 0.77}
    ),
    ("edit", "returned"): lambda calls: calls["recommend"]["constraints"].returned == 0.66,
    ("edit", "kl"): lambda calls: calls["recommend"]["constraints"].kl == 0.55,
    ("edit", "certified"): lambda calls: calls["recommend"]["constraints"].certified is True,
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
            if _name == "HeldOutMeasure":
                return None
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


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.key], ids=lambda stage: stage.name)
def test_every_key_arrives_at_its_engine(stage, values, calls, tmp_path, monkeypatch):
    section = stage.section(**VALUES[stage.key])
    assert set(VALUES[stage.key]) == set(stage.section.model_fields), "a key without a value of its own in this test"
    for name, field in stage.section.model_fields.items():
        assert getattr(section, name) != field.default, f"{name} is set to its default"
    (tmp_path / "held").mkdir()
    (tmp_path / "texts.txt").write_text("One text.", encoding="utf-8")
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


def test_every_key_of_a_training_arrives(monkeypatch, tmp_path):
    from taxlens.stages.features import features_training
    from taxlens.stages.features.features_section import DictionaryTraining

    given = VALUES["features"]["train"]
    section, seen = DictionaryTraining(**given), {}
    assert set(given) == set(DictionaryTraining.model_fields)
    for name, field in DictionaryTraining.model_fields.items():
        assert getattr(section, name) != field.default, name

    def train(models, corpus, jobs, **options):
        seen.update(options, corpus=corpus, jobs=jobs)
        for job in jobs:
            (options["out"] / job.folder).mkdir()

    monkeypatch.setattr(features_training, "train_dictionaries", train)
    monkeypatch.setattr(features_training, "read_dictionary", lambda path: path)
    (tmp_path / "texts.txt").write_text("One text.", encoding="utf-8")
    pair = SimpleNamespace(base=SimpleNamespace(sha256="b"), aligned=SimpleNamespace(sha256="a"))
    features_training.train_missing(pair, section, root=tmp_path, out=tmp_path, resume=False, progress=None)
    assert (seen["tokens"], seen["context"], seen["autocast"]) == (1234, 55, True)
    assert seen["corpus"].files == (str(tmp_path / "texts.txt"),)
    assert [(job.address.layer, job.recipe.seed) for job in seen["jobs"]] == [(1, 3), (1, 4)]
    recipe = seen["jobs"][0].recipe
    for name in ("role", "width", "k", "batch", "passes", "rate"):
        assert getattr(recipe, name) == given[name], name

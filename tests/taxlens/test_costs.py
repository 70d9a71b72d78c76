"""What a dry run says of time follows from trials and from what the config asks for."""

import pytest

from taxlens.config.schema import build_config
from taxlens.runs.context import RunContext
from taxlens.runs.folder import Run
from taxlens.runs.planning import plan
from taxlens.stages import STAGES
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import seconds_of

TRIED = {
    "token": 1e-3,
    "walk 4": 1.0,
    "walk 32": 8.0,
    "diagnose": 2.0,
    "figure": 0.5,
    "picture": 0.1,
    "map": 0.01,
    "compare": 0.2,
    "lens": 1e-3,
    "first walk": 3.0,
    "units component": 14.0,
    "units head": 32.0,
    "units singular": 1000.0,
}
BY_NAME = {stage.name: stage for stage in STAGES}


@pytest.fixture
def cost(tmp_path):
    made = iter(range(100))

    def of(name, *, suites=("facts",), whole=False, measured=(), **sections):
        given = {
            "name": "small", "pair": {"base": "demo:base", "aligned": "demo:planted"}, "tax": {"bootstrap": 100, "generate_items": 0},
            "suites": [{"name": one, "file": f"demo:{one}"} for one in suites], "templates": ["plain"], **sections,
        }  # fmt: skip
        config = build_config(given)
        run = Run.create(config, tmp_path / f"r{next(made)}", given=given, root=tmp_path)
        job = RunContext(run, stages=config.planned)
        job.measured |= TRIED | {f"interval {n} {g} 1": 0.01 for n in range(300) for g in range(100)}
        job.measured |= measured
        found = BY_NAME[name].cost(job, config.of(BY_NAME[name]))
        return found if whole else found.minutes

    return of


def test_the_tax_takes_what_its_tokens_templates_and_answers_take(cost):
    one = cost("tax")
    assert one > 0
    assert cost("tax", templates=["plain", "chat"]) > 1.9 * one
    assert cost("tax", suites=("facts", "copy")) > 1.8 * one
    assert cost("tax", tax={"bootstrap": 100, "generate": ["facts"], "max_new_tokens": 16}) > one
    assert cost("tax", tax={"bootstrap": 100, "generate_items": 24}) > one
    assert cost("tax", tax={"bootstrap": 100, "generate_items": 0, "metrics": ["nll"]}) < one


def test_attribution_takes_what_its_gradients_items_and_methods_take(cost):
    one = cost("attribute")
    assert cost("attribute", attribution={"max_gradients": 3}) < 0.6 * one
    assert cost("attribute", attribution={"items": 24}) < 0.6 * one
    assert cost("attribute", attribution={"methods": ["path", "shapley"]}) > one
    assert cost("attribute", attribution={"null_draws": 4}) > 2 * one
    assert cost("attribute", attribution={"patches": 4, "screen": 4, "stitch": "all"}) > one


def test_a_diagnosis_takes_what_its_layers_and_items_take(cost):
    every = cost("diagnose", diagnose={"layers": "all"})
    assert every == pytest.approx(4 * cost("diagnose", diagnose={"layers": [1]}))
    assert cost("diagnose", diagnose={"layers": "all", "items": 48}) == pytest.approx(4 * 2.0 / 60)


def test_figures_and_report_take_what_their_number_takes(cost):
    assert cost("figures", stages=["tax", "figures"]) < cost("figures")
    assert cost("figures", figures={"which": "all"}) > cost("figures")
    assert cost("report", stages=["tax", "report"]) < cost("report")


def test_similarity_takes_what_its_map_and_sites_take(cost):
    one = cost("similarity", similarity={"map": [], "test_layers": 0})
    assert one > 0
    assert cost("similarity", similarity={"map": ["cka"], "test_layers": 0}) == pytest.approx(one + 16 * 0.01 / 60)
    assert cost("similarity", similarity={"map": [], "test_layers": 2}) > one
    assert cost(
        "similarity", capture={"sites": ["resid_post", "mlp_out"]}, similarity={"map": [], "test_layers": 0}
    ) == (pytest.approx(2 * one))


def test_every_stage_has_a_cost():
    assert [stage.name for stage in STAGES if stage.cost is None] == []


ROLES = {"suites": ("facts", "harm", "harmless")}
ASKED = {
    "frontier": {**ROLES, "frontier": {"benefit": "harm", "against": "harmless"}},
    "edit": {**ROLES, "edit": {"harm": "harm", "harmless": "harmless", "suites": ["facts"], "editors": ["relearn"]}},
    "features": {"features": {"train": {"corpus": ["texts"], "layers": [1]}}},
    "probe": {"probes": {"labels": ["correct"]}, "measured": {"probe 384 48 2": 0.1}},
}


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_stage_says_minutes_bytes_and_memory(cost, name):
    found = cost(name, whole=True, **ASKED.get(name, {}))
    assert found.minutes > 0
    assert 1e3 < found.disk < 1e10
    assert 1e7 < found.memory < 1e10


def test_what_is_kept_for_the_pair_is_counted_once(cost):
    quick, slow = (cost("attribute", measured={"first walk": seconds}) for seconds in (1.0, 61.0))
    assert slow == pytest.approx(quick + 1)


def test_bytes_grow_with_what_is_written(cost):
    def disk(name, **sections):
        return cost(name, whole=True, **sections).disk

    assert disk("tax", suites=("facts", "copy")) > 1.3 * disk("tax")
    assert disk("tax", tax={"bootstrap": 100, "generate": ["facts"]}) > disk("tax")
    assert disk("attribute", attribution={"items": 24}) < disk("attribute")
    assert disk("attribute", attribution={"metrics": ["nll"]}) < 0.5 * disk("attribute")
    assert disk("lens", suites=("facts", "copy")) > disk("lens")


def test_memory_of_training_is_more_than_that_of_the_path_and_that_more_than_scoring(cost):
    def memory(name, **sections):
        return cost(name, whole=True, **sections).memory

    orders = {"benefit": "harm", "against": "harmless", "unit": "component", "orders": ["path"]}
    path = memory("frontier", **ROLES, frontier=orders)
    assert memory("frontier", **ROLES, frontier=orders | {"orders": ["path", "relearn"]}) > path
    assert memory("diagnose", diagnose={}) > memory("tax")
    assert memory("attribute") > memory("attribute", attribution={"items": 24}) > memory("tax")


def test_costs_are_told_in_a_readers_units():
    assert str(StageCost(0.5, disk=2e6)) == "about 30 s, 2 MB on disk"
    assert str(StageCost(90.0, memory=3e9)) == "about 90.0 minutes, 3.0 GB of memory above the models"


def test_a_plan_sums_its_stages(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: small\npair: {base: demo:base, aligned: demo:planted}\nsuites: [{name: facts, file: demo:facts}]\n"
        "templates: [plain]\ntax: {bootstrap: 100}\nstages: [tax, figures]\n",
        encoding="utf-8",
    )
    found = plan(config)
    assert set(found) == {"stages", "pair", "suite facts", "tax", "figures", "in all"}
    assert found["in all"].startswith("about ")


def test_a_trial_is_done_as_often_as_asked():
    calls = []
    assert seconds_of(lambda: calls.append(1), times=3) >= 0
    assert len(calls) == 3

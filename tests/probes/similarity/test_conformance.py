"""Every measure equals other people's code, or its paper's formula on rows, to 1e-8 in float64."""

from pathlib import Path

import pytest

from benchmarks.similarity import references as ref
from benchmarks.similarity.conformance import conformance_table
from benchmarks.similarity.table import DEVIATIONS, REFERENCES, rows_of_a_pair
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.similarity.measures import MEASURES
from taxlens.probes.similarity.similarity import similarity

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages

PAIRS = {"d=12, n=300": {"n": 300, "d": 12}, "d=24, n=120": {"n": 120, "d": 24, "seed": 1}}


@pytest.fixture(scope="module", params=PAIRS, ids=list(PAIRS))
def pair(request):
    X, Y, fold = rows_of_a_pair(**PAIRS[request.param])
    rows = similarity(gather((X, Y), keep=len(X)), measures=list(MEASURES)).rows
    return X, Y, fold, {row.measure: row.value for row in rows}


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: f"{r.measure}: {r.name}")
def test_measure_equals_its_reference(pair, reference):
    X, Y, fold, own = pair
    assert own[reference.measure] == pytest.approx(reference.value(X, Y, fold), rel=1e-8)


def test_every_measure_has_two_references():
    counts = {name: sum(r.measure == name for r in REFERENCES) for name in MEASURES}
    assert min(counts.values()) >= 2


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda d: f"{d[0]}: {d[1]}")
def test_named_deviation_still_deviates(pair, deviation):
    X, Y, _, own = pair
    measure, _, _, function = deviation
    assert abs(function(X, Y) - own[measure]) > 1e-3


def test_repsim_pillai_is_the_mean_of_rho(pair):
    X, Y, _, _ = pair
    value = ref.repsim_value("cca", X, Y, summary_type="pillai")
    assert value == pytest.approx(ref.angle_correlations(X, Y).mean(), rel=1e-8)


def test_an_epsilon_in_the_denominator_makes_cka_depend_on_scale(pair):
    X, Y, _, own = pair

    assert ref.song_cka(X, Y, epsilon=1e-6) == pytest.approx(own["cka"], rel=1e-6)
    assert ref.song_cka(X / 1000, Y / 1000, epsilon=1e-6) < 0.99 * own["cka"]
    small = similarity((X / 1000, Y / 1000), measures=["cka", "cka_biased"]).rows
    assert [row.value for row in small] == pytest.approx([own["cka"], own["cka_biased"]], rel=1e-10)


def test_the_page_shows_the_table_that_the_command_makes():
    page = (Path(__file__).parents[3] / "docs" / "similarity.md").read_text(encoding="utf-8")
    made = conformance_table().splitlines()
    assert [line for line in made if line not in page.splitlines()] == []

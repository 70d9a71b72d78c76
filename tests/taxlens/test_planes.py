"""Both models' prompts on two axes, and along the direction of what alignment was for: held out, and blind where nothing is."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.house.legible import illegible
from taxlens.figures.style import VENUES
from taxlens.stages.similarity.plane_figures import draw_plane, draw_refusal
from taxlens.stages.similarity.planes import PROMPTS, activation_plane, difference, held_out, plane_of, refusal_tables


class FakeStore:
    """A store of made-up rows: what the planes ask of one."""

    sites = ("resid_post",)

    def __init__(self, gap, *, groups=20, items=40, width=12, shift=0.0, seed=0):
        rng = np.random.default_rng(seed)
        rows = [
            {
                "suite": suite,
                "item": f"{suite}/{n}",
                "group": f"g{n % groups}",
                "template": "plain",
                "kind": kind,
                "position": p,
            }
            for suite in ("facts", "harmless", "harm")
            for n in range(items)
            for kind, p in (("prompt", 3), ("prompt", 4), ("gold", 9))
        ]
        self.rows = pd.DataFrame(rows)
        asked = (self.rows["suite"] == "harm").to_numpy()[:, None]
        axis = np.eye(width)[0]
        noise = rng.normal(size=(2, 2, len(rows), width))
        self.data = {
            (model, layer): noise[layer, m] + gap[m] * asked * axis + m * shift * np.eye(width)[1]
            for m, model in enumerate(("base", "aligned"))
            for layer in (0, 1)
        }

    def layers(self, site):
        return (0, 1)

    def read(self, site, layer, *, model, rows):
        return self.data[model, layer][rows].astype(np.float32)


def test_the_plane_holds_the_two_leading_axes_of_both_models_together():
    rng = np.random.default_rng(0)
    base, aligned = rng.normal(size=(2, 30, 5)) * [5, 3, 1, 1, 1]
    (one, other), share = plane_of(base, aligned)
    pooled = np.concatenate([base, aligned])
    pooled = pooled - pooled.mean(axis=0)
    u, s, _ = np.linalg.svd(pooled, full_matrices=False)
    expected = u[:, :2] * s[:2]
    found = np.concatenate([one, other])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum())
    assert (other.mean(axis=0) >= one.mean(axis=0)).all()


def test_every_suite_gives_its_last_tokens_only():
    store = FakeStore((0, 0), items=PROMPTS + 30)
    frame = activation_plane(store)
    assert len(frame) == 3 * PROMPTS * 2 * 2
    assert not frame.duplicated(["suite", "layer", "item", "model"]).any()
    store.sites = ("mlp_out",)
    assert activation_plane(store).empty


def test_a_shift_of_one_model_is_the_first_axis():
    frame = activation_plane(FakeStore((0, 0), shift=20.0))
    means = frame.groupby(["layer", "model"])["x"].mean().unstack()
    assert (means["aligned"] - means["base"] > 15).all()


def test_what_only_aligned_separates_is_seen_in_aligned_only():
    projections, course = refusal_tables(FakeStore((0.0, 6.0)), {"harm"})
    assert (course["auc_aligned"] > 0.99).all()
    assert course["auc_base"].between(0.3, 0.7).all()
    means = projections.groupby(["model", "kind"])["value"].mean()
    assert means["aligned", "benefit"] == pytest.approx(1.0, abs=0.1)
    assert means["aligned", "capability"] == pytest.approx(0.0, abs=0.1)
    assert abs(means["base", "benefit"] - means["base", "capability"]) < 0.15


def test_a_direction_of_nothing_reads_at_chance_because_it_is_held_out():
    _, course = refusal_tables(FakeStore((0.0, 0.0), width=200), {"harm"})
    assert course[["auc_base", "auc_aligned"]].to_numpy() == pytest.approx(0.5, abs=0.15)
    store = FakeStore((0.0, 0.0), width=200)
    rows = store.rows[(store.rows["position"] == 4)]
    X, asked, suites = (
        store.data["aligned", 0][rows.index],
        (rows["suite"] == "harm").to_numpy(),
        rows["suite"].to_numpy(),
    )
    naive = X @ difference(X, asked, suites)
    assert np.sign(naive[asked][:, None] - naive[~asked][None]).mean() > 0.9  # fitted on what it reads


def test_a_row_is_read_by_the_direction_of_the_other_half():
    X = np.array([[0.0], [1.0], [0.0], [3.0]])
    asked, suites, halves = np.array([False, True] * 2), np.array(["a", "b"] * 2), np.array([0, 0, 1, 1])
    assert held_out(X, X, asked, suites, halves).tolist() == pytest.approx([0, 1 / 3, 0, 3])


def test_without_prompts_of_both_kinds_there_are_no_rows():
    projections, course = refusal_tables(FakeStore((0, 1)), set())
    assert projections.empty
    assert course.empty


@pytest.mark.parametrize("width", sorted({inches for pair in VENUES.values() for inches in pair}))
def test_the_pictures_are_legible_at_every_width(width):
    store = FakeStore((1.0, 6.0), shift=2.0)
    plane = draw_plane(activation_plane(store), width=width)
    assert illegible(plane.figure) == []
    assert set(plane.plotted["model"]) == {"base", "aligned"}
    projections, course = refusal_tables(store, {"harm"})
    drawn = draw_refusal(projections, directions=course, width=width)
    assert illegible(drawn.figure) == []
    assert set(drawn.plotted["kind"]) == {"benefit", "capability"}

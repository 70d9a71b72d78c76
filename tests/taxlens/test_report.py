"""The report opens with the answer, escapes what it shows, and needs no network."""

import pandas as pd
import pytest

from taxlens.config.schema import build_config
from taxlens.report.answer import headline
from taxlens.report.limits import limits
from taxlens.report.page import write_report
from taxlens.runs.folder import Run
from taxlens.words.suite_rows import by_loss

TAX = pd.DataFrame(
    [
        ("facts", "capability", "probability", "plain", 0.99, 0.51, 0.481, 0.460, 0.503, 192, 48),
        ("sums", "capability", "probability", "plain", 0.99, 0.98, 0.002, -0.01, 0.012, 100, 20),
        ("harm", "benefit", "probability", "chat", 0.14, 0.97, -0.832, -0.846, -0.819, 192, 16),
    ],
    columns=["suite", "kind", "metric", "template", "base", "aligned", "tax", "low", "high", "n_items", "n_groups"],
)
TWO = pd.DataFrame(
    [
        ("facts", "probability", e, v, v - 0.02, v + 0.02)
        for e, v in (("weights", 0.481), ("template", 0.09), ("interaction", 0.0), ("total", 0.571))
    ],
    columns=["suite", "metric", "effect", "value", "low", "high"],
)
EFFECTS = pd.DataFrame(
    [
        ("facts", "probability", "path", "component", c, e, s)
        for c, e, s in (("2.mlp", 0.31, 0.64), ("1.attn", 0.16, 0.34), ("embed", 0, 0))
    ],
    columns=["suite", "metric", "method", "level", "component", "effect", "share"],
)
CLOSURE = pd.DataFrame(
    [("facts", "plain", "probability", "path", 0.481, 3e-9)],
    columns=["suite", "template", "metric", "method", "tax", "residual"],
)


@pytest.fixture
def opened(tmp_path, put):
    values = {"name": "small", "pair": {"base": "a", "aligned": "b"}, "suites": [{"name": "facts", "file": "f"}]}
    run = Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path)
    for name, frame in (("tax", TAX), ("tax_2x2", TWO), ("attribution", EFFECTS), ("closure", CLOSURE)):
        put(run, name, frame)
    return run


def test_the_answer_says_loss_template_place_and_closure_in_one_sentence(opened):
    assert headline(opened)[0] == (
        "facts lost 57.1 points [55.1, 59.1] of probability (base in plain, aligned in chat); of these 9.0 are the template; "
        "48.1 [46.0, 50.3] are the weights (plain prompt); the weights' part sits 64 % in 2.mlp, 34 % in 1.attn (unexplained: 3.0e-09)."
    )


def test_the_template_leads_even_where_the_weights_lost_nothing(opened, put):
    put(opened, "tax", TAX.assign(tax=0.001, low=-0.01, high=0.012))
    said = headline(opened)[0]
    assert said.startswith(
        "facts lost 57.1 points [55.1, 59.1] of probability (base in plain, aligned in chat); of these 9.0 are"
    )
    assert "0.1 [-1.0, 1.2] are the weights (plain prompt, not told from none)" in said


def test_a_change_that_is_not_told_from_none_has_no_share_of_the_template(opened, put):
    put(opened, "tax_2x2", TWO.assign(low=-0.1, high=0.6))
    assert headline(opened)[0].startswith("facts lost 48.1 points")


def test_the_largest_tax_opens_the_page_whatever_the_order_of_suites(opened, put):
    put(opened, "tax", TAX.iloc[[1, 0, 2]])
    assert by_loss(opened) == ["facts", "sums"]
    assert headline(opened)[0].startswith("facts lost 57.1 points")


def test_a_gain_is_said_with_its_interval_in_rising_order(opened, put, take_away):
    gained = TAX.assign(tax=[-0.02, 0.002, -0.8], low=[-0.04, -0.01, -0.9], high=[-0.01, 0.012, -0.7])
    put(opened, "tax", gained)
    take_away(opened, "tax_2x2")
    assert any("facts gained 2.0 points [1.0, 4.0] of probability" in said for said in headline(opened))


def test_what_stays_decodable_and_the_state_are_said_with_the_loss(opened, put):
    drops = pd.DataFrame({"suite": "facts", "label": "correct", "layer": [0, 1, 2], "drop": [0.0, 0.1, 0.2]})
    put(opened, "probe_drop", drops.assign(p_adjusted=1.0))
    put(opened, "states", pd.DataFrame({"suite": ["facts"], "layer": [float("nan")], "state": ["suppressed"]}))
    assert "no probe drop of the right answer at any of 3 layers; " in headline(opened)[0]
    assert "; its state is suppressed." in headline(opened)[0]
    put(opened, "probe_drop", drops.assign(p_adjusted=[1.0, 0.01, 0.04]))
    assert "the right answer is less decodable at layers 1, 2; " in headline(opened)[0]


def test_without_a_recommended_plan_the_best_that_keeps_the_benefit_is_named(opened, put):
    columns = [
        "plan",
        "suite",
        "metric",
        "share_undone",
        "returned",
        "returned_low",
        "returned_high",
        "benefit_kept",
        "draw",
    ]
    rows = [
        ("a", "", "probability", 0.01, 0.9, 0.8, 0.95, 0.5, -1),
        ("b", "", "probability", 0.02, 0.3, 0.2, 0.4, 0.96, -1),
    ]
    put(opened, "frontier", pd.DataFrame(rows, columns=columns))
    assert (
        "of the plans that keep 95% of the benefit, undoing 2.0 % of the update's units (b) returns 30 % [20, 40]"
        in headline(opened)[0]
    )
    put(opened, "frontier", pd.DataFrame(rows[:1], columns=columns))
    assert "no plan that was measured returns 5% of it and keeps 95% of the benefit" in headline(opened)[0]


def test_limits_name_what_had_not_settled_and_small_suites(opened, put):
    opened.manifest["suites"] = {"facts": {"items": 40, "groups": 7}, "sums": {"items": 400, "groups": 90}}
    put(opened, "closure", CLOSURE.assign(closed=False, reason="effects still change by 7 %"))
    said = " ".join(limits(opened))
    assert "Not settled by the stopping rule: facts (effects still change by 7 %)." in said
    assert "fewer than 20 groups, whose intervals are rough: facts (7)." in said
    put(opened, "closure", CLOSURE.assign(closed=True, reason=""))
    assert "Not settled" not in " ".join(limits(opened))


def test_an_interval_over_zero_is_no_tax_shown(opened):
    assert headline(opened)[1] == "sums: no tax shown in probability (0.2 points [-1.0, 1.2], plain)."


def test_the_benefit_is_said_as_a_gain(opened):
    assert headline(opened)[2] == (
        "What alignment was for: harm rose by 83.2 points [81.9, 84.6] of probability (chat)."
    )


def test_the_recommended_plan_is_said_with_its_price(opened, put):
    opened.manifest["frontier"] = {"recommended": "path-0.025"}
    row = ("path-0.025", "", "probability", 0.025, 0.84, 0.7, 0.95, 0.98)
    columns = ["plan", "suite", "metric", "share_undone", "returned", "returned_low", "returned_high", "benefit_kept"]
    put(opened, "frontier", pd.DataFrame([row], columns=columns))
    assert headline(opened)[0].endswith(
        "; undoing 2.5 % of the update's units (path-0.025) returns 84 % [70, 95] of the tax on held-out items, "
        "keeping 98 % of the benefit."
    )


def test_the_page_escapes_needs_no_network_and_no_script(opened, put):
    put(opened, "items", pd.DataFrame({"item": ["<script>alert(1)</script>"]}))
    page = write_report(opened).read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    for outside in ("<script", "http://", "https://", "//cdn"):
        assert outside not in page
    assert page.startswith("<!doctype html>")
    assert (
        page.index("facts lost 57.1")
        < page.index('id="tables"')
        < page.index('id="limits"')
        < page.index('id="reproduce"')
    )
    assert page.count("<h1>") == 1


def test_a_run_without_a_tax_says_so(tmp_path):
    values = {"name": "small", "pair": {"base": "a", "aligned": "b"}, "suites": [{"name": "facts", "file": "f"}]}
    run = Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path)
    assert headline(run) == ["No tax was measured in this run."]

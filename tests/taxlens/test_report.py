"""The report opens with the answer, escapes what it shows, and needs no network."""

import base64
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from taxlens.config.schema import build_config
from taxlens.report.answer import headline
from taxlens.report.limits import limits
from taxlens.report.page import write_report
from taxlens.report.pictures import MOST_SHOWN, Picture, leading, without_last
from taxlens.report.shown_tables import shown_table
from taxlens.report.views import view_of
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


def test_the_answer_says_loss_template_and_place_with_one_prompt_for_both_models(opened):
    assert headline(opened)[0] == (
        "facts lost 48.1 points [46.0, 50.3] of probability (99.0 -> 51.0 %, plain prompt for both, 192 items). "
        "From base in plain to aligned in chat the loss is 57.1 points: 48.1 from the weights, 9.0 from the template, "
        "0.0 from their interaction. Of the 48.1 points, 31.0 come from 2.mlp and 16.0 from 1.attn; the other component "
        "adds 0.0; 1.1 is unexplained."
    )


def test_parts_add_to_the_whole_to_the_printed_digit(opened, put, parts_add_up):
    rng = np.random.default_rng(0)
    for _ in range(20):
        effects = rng.normal(size=7) / 20 + np.array([0.3, 0.2, 0, 0, 0, 0, 0])
        names = ["2.mlp", "1.attn", "0.mlp", "0.attn", "1.mlp", "embed", "unembed"]
        tax = effects.sum() + rng.normal() / 500
        frame = pd.DataFrame({"component": names, "effect": effects}).assign(
            suite="facts", metric="probability", method="path", level="component", share=effects / tax
        )
        put(opened, "attribution", frame)
        put(opened, "closure", CLOSURE.assign(tax=tax, residual=tax - effects.sum()))
        assert parts_add_up(headline(opened)[0]) == 2


def test_the_template_is_told_even_where_the_weights_lost_nothing(opened, put):
    put(opened, "tax", TAX.assign(tax=0.001, low=-0.01, high=0.012))
    said = headline(opened)[0]
    assert said.startswith("facts: no loss shown, 0.1 points [-1.0, 1.2] of probability")
    assert "9.0 from the template" in said


def test_a_template_that_is_not_told_from_none_is_not_spoken_of(opened, put):
    put(opened, "tax_2x2", TWO.assign(low=-0.1, high=0.6))
    assert "template" not in headline(opened)[0]


def test_the_largest_tax_opens_the_page_whatever_the_order_of_suites(opened, put):
    put(opened, "tax", TAX.iloc[[1, 0, 2]])
    assert by_loss(opened) == ["facts", "sums"]
    assert headline(opened)[0].startswith("facts lost 48.1 points")


def test_a_gain_is_said_with_its_interval_in_rising_order(opened, put, take_away):
    gained = TAX.assign(tax=[-0.02, 0.002, -0.8], low=[-0.04, -0.01, -0.9], high=[-0.01, 0.012, -0.7])
    put(opened, "tax", gained)
    take_away(opened, "tax_2x2")
    assert any("facts gained 2.0 points [1.0, 4.0] of probability" in said for said in headline(opened))


def drops(p_adjusted, p_no_loss=1.0):
    frame = pd.DataFrame({"suite": "facts", "label": "correct", "layer": [0, 1, 2], "drop": [0.0, 0.1, 0.2]})
    return frame.assign(p_adjusted=p_adjusted, p_no_loss=p_no_loss)


def probes(best, low, confound):
    row = {"suite": "facts", "label": "correct", "metric": "auc"}
    own = row | {"fitted_on": "base", "read_on": "base", "control": "none", "layer": 1, "value": best, "low": low}
    other = row | {"fitted_on": "base", "read_on": "base", "control": "confound", "value": confound, "low": confound}
    return pd.DataFrame([own, other])


def test_what_stays_decodable_and_the_state_are_said_with_the_loss(opened, put):
    put(opened, "probe_drop", drops(1.0))
    put(opened, "states", pd.DataFrame({"suite": ["facts"], "layer": [float("nan")], "state": ["suppressed"]}))
    assert "shows no drop at 3 layers, but does not exclude one." in headline(opened)[0]
    assert "State: suppressed." in headline(opened)[0]
    put(opened, "probe_drop", drops(1.0, p_no_loss=0.001))
    assert "The right answer is as decodable as before at all 3 layers." in headline(opened)[0]
    put(opened, "probe_drop", drops([1.0, 0.01, 0.04]))
    assert "The right answer is less decodable at layers 1, 2." in headline(opened)[0]


def test_a_probe_that_confounds_match_or_that_reads_nothing_makes_no_claim(opened, put):
    put(opened, "probe_drop", drops(1.0, p_no_loss=0.001))
    put(opened, "probes", probes(0.97, 0.95, 1.0))
    assert "cannot tell: the last token and the position alone read it at AUC 1.00" in headline(opened)[0]
    put(opened, "probes", probes(0.55, 0.45, 0.4))
    assert "cannot tell: it reads no better than chance (AUC 0.55)" in headline(opened)[0]
    put(opened, "probes", probes(0.97, 0.95, 0.6))
    assert "as decodable as before" in headline(opened)[0]


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
        "harm_kept",
        "draw",
    ]
    rows = [
        ("a", "", "probability", 0.01, 0.9, 0.8, 0.95, 0.5, 0.97, -1),
        ("c", "", "probability", 0.01, 0.9, 0.8, 0.95, 1.1, 0.6, -1),  # keeps the difference and loses harm alone
        ("b", "", "probability", 0.02, 0.3, 0.2, 0.4, 0.96, 0.97, -1),
    ]
    put(opened, "frontier", pd.DataFrame(rows, columns=columns))
    assert (
        "Of the plans that keep 95% of the benefit, undoing 2.0 % of the update's units (b) returns 30 % [20, 40]"
        in headline(opened)[0]
    )
    put(opened, "frontier", pd.DataFrame(rows[:2], columns=columns))
    assert "No plan that was measured returns 5% of it and keeps 95% of the benefit" in headline(opened)[0]


def test_limits_name_what_had_not_settled_and_small_suites(opened, put):
    opened.manifest["suites"] = {"facts": {"items": 40, "groups": 7}, "sums": {"items": 400, "groups": 90}}
    put(opened, "closure", CLOSURE.assign(closed=False, reason="effects still change by 7 %"))
    said = " ".join(limits(opened))
    assert "Not closed: facts (effects still change by 7 %)." in said
    assert "fewer than 20 groups, whose intervals are rough: facts (7)." in said
    put(opened, "closure", CLOSURE.assign(closed=True, reason=""))
    assert "Not closed" not in " ".join(limits(opened))


def test_an_interval_over_zero_is_no_tax_shown(opened):
    assert headline(opened)[1] == (
        "sums: no loss shown, 0.2 points [-1.0, 1.2] of probability (99.0 -> 98.0 %, plain prompt for both, 100 items)."
    )


def test_the_benefit_is_said_as_what_rose_or_fell(opened, put):
    assert headline(opened)[2] == (
        "What alignment was for: on harm probability (14.0 -> 97.0 %, chat prompt for both, 192 items) rose by 83.2 points "
        "[81.9, 84.6]."
    )
    fell = TAX.assign(tax=[0.5, 0.0, 0.3], low=[0.4, -0.1, 0.2], high=[0.6, 0.1, 0.4])
    put(opened, "tax", fell)
    assert headline(opened)[2].endswith("fell by 30.0 points [20.0, 40.0].")


def test_the_recommended_plan_is_said_with_its_price(opened, put):
    opened.manifest["frontier"] = {"recommended": "path-0.025"}
    row = ("path-0.025", "", "probability", 0.025, 0.84, 0.7, 0.95, 0.98, 0.97)
    columns = ["plan", "suite", "metric", "share_undone", "returned", "returned_low", "returned_high", "benefit_kept"]
    columns += ["harm_kept"]
    put(opened, "frontier", pd.DataFrame([row], columns=columns))
    assert headline(opened)[0].endswith(
        " Undoing 2.5 % of the update's units (path-0.025) returns 84 % [70, 95] of the tax on held-out items, "
        "keeping 98 % of the benefit and 97 % of harm alone."
    )


def test_the_page_escapes_and_needs_no_network(opened, put):
    put(opened, "items", pd.DataFrame({"item": ["<script>alert(1)</script>"]}))
    page = write_report(opened).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert" in page
    for outside in ("<script>alert", "http://", "https://", "//cdn", "innerHTML", "eval("):
        assert outside not in page
    assert page.startswith("<!doctype html>")
    places = [
        page.index(f'id="{key}"')
        for key in ("answer", "bill", "where", "state", "price", "sure", "tables", "reproduce")
    ]
    assert places == sorted(places)
    assert page.index("facts lost 48.1") < places[1]
    assert page.count("<h1>") == 1


def test_the_page_runs_its_own_script_and_no_other(opened):
    page = write_report(opened).read_text(encoding="utf-8")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.DOTALL)
    assert [kind for kind, _ in scripts] == [' type="application/json" id="data"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert f"script-src &#39;sha256-{digest}&#39;" in policy.replace("'", "&#39;")
    assert policy.startswith("default-src 'none'")


def test_words_of_a_run_cannot_end_the_data(opened):
    folder = opened.folder / "figures"
    bad = "</script><!--<script>\u2028"
    rows = pd.DataFrame(
        {"suite": [bad], "kind": "capability", "template": "plain", "metric": "probability", "tax": 0.5}
    )
    folder.mkdir(exist_ok=True)
    rows.assign(low=0.4, high=0.6).to_csv(folder / "tax_probability.csv", index=False)
    Image.new("RGB", (40, 20)).save(folder / "tax_probability.png")
    page = write_report(opened).read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1]
    assert not set("<>&\u2028") & set(found)
    assert json.loads(found)["views"]["tax_probability"]["marks"][0][2] == f"{bad}, plain"


def drawn(run, name, frame):
    (run.folder / "figures").mkdir(exist_ok=True)
    frame.to_csv(run.folder / "figures" / f"{name}.csv", index=False)
    return view_of(run, name)


def test_a_picture_that_can_be_touched_shows_the_plotted_numbers_in_their_unit(opened):
    frame = pd.DataFrame({"component": ["2.mlp", "embed"], "kind": ["mlp", "embed"], "effect": [0.31, np.nan]})
    view = drawn(opened, "attribution_facts_probability", frame.assign(low=[0.3, np.nan], high=[0.32, np.nan]))
    assert view["shape"] == "cascade"
    assert view["words"] == "effect, positive is loss (points)"
    assert view["marks"][0] == ["", "mlp", "2.mlp", "", "", 31, 30, 32, "2.mlp", 2]
    assert view["marks"][1] == ["", "embed", "embed", "", "", None, None, None, "embed", None]
    layers = pd.DataFrame({"panel": ["tax", "cka"], "layer": [3, 3], "value": [0.2, 0.9], "low": 0.1, "high": 0.95})
    view = drawn(opened, "layer_profile_facts", layers)
    assert [(mark[0], mark[3], mark[5], mark[9]) for mark in view["marks"]] == [
        ("tax (points)", 3, 20, 3),
        ("CKA", 3, 0.9, 3),
    ]
    heads = pd.DataFrame({"component": ["1.attn.h0", "0.attn.kv1"], "effect": [0.01, -0.02]})
    assert [mark[3:6] for mark in drawn(opened, "head_map_facts_nll", heads.assign(metric="nll"))["marks"]] == [
        [1, "h0", 0.01],
        [0, "kv1", -0.02],
    ]
    assert drawn(opened, "directions_plain", layers) is None
    assert drawn(opened, "attribution_other", layers) is None


def test_a_gain_of_the_benefit_is_positive_on_its_own_axis(opened):
    rows = TAX[["suite", "kind", "template", "metric", "tax", "low", "high"]]
    view = drawn(opened, "tax_probability", rows)
    assert view["named"] == {"benefit": "gain (points)"}
    assert [mark[5:8] for mark in view["marks"] if mark[0] == "benefit"] == [[83.2, 81.9, 84.6]]


def test_many_items_are_cut_to_those_that_moved_and_it_is_said(opened):
    base = np.linspace(0, 1, 1500)
    items = pd.DataFrame({"item": [f"i{n}" for n in range(1500)], "base": base, "aligned": base})
    items.loc[1499, "aligned"] = 0.0
    view = drawn(opened, "items_facts_plain", items.assign(change="kept"))
    assert (len(view["marks"]), view["of"]) == (600, 1500)
    assert any(mark[2] == "i1499" for mark in view["marks"])


def test_a_long_table_shows_the_rows_that_matter_and_says_how_many_there_are(opened, put):
    rows = [(s, m, lv, c, n / 1000) for s in ("sums", "facts") for m in ("nll", "probability") for lv in ("head", "component")
            for n, c in enumerate(f"{k}.mlp" for k in range(60))]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["suite", "metric", "level", "component", "effect"]).assign(
        method="path", share=0.1
    )
    put(opened, "attribution", frame)
    shown = shown_table(opened, "attribution")
    names = [name for name, _ in shown["columns"]]
    first = dict(zip(names, shown["rows"][0], strict=True))
    assert (first["suite"], first["metric"], first["level"], first["component"]) == (
        "facts",
        "probability",
        "component",
        "59.mlp",
    )
    assert shown["note"].startswith("80 of 480 rows: metric probability, level component")
    assert dict(shown["columns"])["effect"]


def test_at_most_twelve_pictures_lead_and_the_second_suite_gives_way():
    names = [
        f"{kind}_{suite}_probability" for kind in ("attribution", "items", "layer_profile") for suite in ("a", "b")
    ]
    names += [f"layer_profile_{s}" for s in "ab"] + [f"items_{s}_{t}" for s in "ab" for t in ("chat", "plain")]
    names += [
        "tax_probability",
        "two_by_two_probability",
        "suite_matrix",
        "states",
        "evidence_a",
        "evidence_b",
        "figure1",
    ]
    names += ["restoration_probability", "front_probability", "predicted_probability"]
    names += [f"logit_lens_{s}_plain" for s in "ab"]
    found = leading(
        [name for name in names if not name.startswith("items_a_prob")], ["a", "b"], templates={"a": "plain"}
    )
    assert len(found) == MOST_SHOWN == 12
    assert {"front_probability", "states", "evidence_a", "items_a_plain", "attribution_a_probability"} <= set(found)


def test_a_page_over_its_size_links_the_last_pictures():
    few = [Picture(name, "c", "x" * 100, 1, 1) for name in "ab"]
    fold = [("Tax", [Picture("c", "c", "x" * 100, 1, 1)])]
    shown, groups, dropped = without_last(few, fold, 150)
    assert dropped
    assert [p.data for p in shown] == ["x" * 100, ""]
    assert groups[0][1][0].data == ""
    assert without_last(few, fold, 0) == (few, fold, False)


def test_what_a_run_lacks_is_said_where_it_would_stand(opened):
    page = write_report(opened).read_text(encoding="utf-8")
    assert f"was not tested in this run: `taxlens diagnose {opened.folder.name}`" in page
    assert "Layers count from 0" in page


def test_no_path_of_the_machine_stands_on_the_page(opened):
    opened.manifest["pair"] = {"base": "/home/somebody/models/base", "aligned": "demo:planted"}
    opened.manifest["config"]["given"]["pair"] = {"base": "/home/somebody/models/base"}
    page = write_report(opened).read_text(encoding="utf-8")
    assert "somebody" not in page
    assert ".../models/base" in page


def test_a_run_without_a_tax_says_so(tmp_path):
    values = {"name": "small", "pair": {"base": "a", "aligned": "b"}, "suites": [{"name": "facts", "file": "f"}]}
    run = Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path)
    assert headline(run) == ["No tax was measured in this run."]

"""What `taxlens attribute` writes beside the effects: agreement, significance, null, readings, names, patches, segments."""

import pytest

import taxlens
from taxlens.core.errors import ConfigError
from taxlens.inputs.checkpoints import load_chain
from taxlens.runs.running import run

CONFIG = """name: small
pair: {{base: demo:base, aligned: {aligned}{more}}}
suites:
  - {{name: facts, file: demo:facts}}
templates: [plain]
stages: [attribute]
tax: {{bootstrap: 100}}
attribution: {{items: 5, tolerance: 0.05, max_gradients: 7, {attribution}}}
"""
ALL = (
    "metrics: [accuracy, probability, kl], levels: [component, head, neuron, singular], reading: 1, "
    "methods: [path, graft, restore], null_draws: 1, patches: 1, screen: 3"
)


def written(folder, attribution, aligned="demo:planted", more=""):
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(aligned=aligned, more=more, attribution=attribution), encoding="utf-8")
    return run(config, out=folder / "run")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return written(tmp_path_factory.mktemp("full"), ALL)


COLUMNS = {
    "attribution": "consistency p p_adjusted",
    "agreement": "suite template metric level method closure pearson spearman top3 l1 mass interaction_share units coverage",
    "attribution_null": "suite template metric level component effect null_size exceeds null_draws",
    "attribution_units": "suite template metric component effect sigma cluster_size cluster cluster_effect same_sign in_top",
    "attribution_reading": "suite template component side rank item token text value",
    "attribution_names": "level component parameter rows columns triple transformer_lens hook",
    "screen": "suite template metric component effect low high measured agreement",
    "patches": "suite template metric into part level component position role effect low high share",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_table_has_its_columns_and_rows(full, name):
    table = full.table(name)
    assert set(COLUMNS[name].split()) <= set(table.columns)
    assert len(table)


def test_units_of_every_level_sum_to_the_same_total(full):
    table = full.table("attribution").query("method == 'path'")
    totals = table.groupby(["metric", "level"])["effect"].sum().unstack("level")
    assert set(totals.columns) == {"component", "head", "neuron", "singular"}
    assert (totals.max(axis=1) - totals.min(axis=1)).abs().max() < 1e-5
    neurons = table[(table["level"] == "neuron") & (table["metric"] == "kl")]["component"]
    assert neurons.str.match(r"2\.mlp\.n\d+").sum() == 32


def test_the_panel_compares_every_method_with_the_path(full):
    panel = full.table("agreement")
    assert set(panel["method"]) == {"path", "graft", "restore"}
    assert set(panel["metric"]) == {"accuracy", "probability"}
    path = panel[panel["method"] == "path"]
    assert path["closure"].to_numpy() == pytest.approx(1, abs=0.01)
    assert (path["l1"] == 0).all()
    assert panel["interaction_share"].notna().all()
    assert panel["coverage"].between(0, 1.000001).all()


def test_a_shuffled_change_says_how_large_an_effect_its_size_alone_gives(full):
    null = full.table("attribution_null")
    assert (null["null_draws"] == 1).all()
    changed = null[null["null_size"] > 0]
    assert len(changed)
    unchanged = null[(null["effect"] == 0) & (null["null_size"] == 0)]
    assert (unchanged["exceeds"] == 0).all()


def test_the_screen_is_checked_by_real_patches(full):
    screen = full.table("screen")
    assert screen["measured"].notna().sum() == 6
    assert screen["agreement"].between(-1, 1).all()
    assert len(screen) == 8


def test_the_report_shows_the_panel(full):
    from taxlens.report.page import write_report

    page = write_report(full).read_text(encoding="utf-8")
    assert "agreement" in page
    assert "interaction_share" in page
    assert "patches" in page


def test_the_path_alone_writes_no_panel_and_no_patches(tmp_path):
    small = written(tmp_path, "metrics: [nll], levels: [component], reading: 0, recompute: true")
    assert set(small.tables) == {
        "attribution", "attribution_items", "attribution_tokens", "attribution_names", "closure", "path",
    }  # fmt: skip


def test_a_list_of_aligned_is_walked_segment_by_segment(tmp_path):
    done = written(tmp_path, "metrics: [nll], levels: [component, singular]", "[demo:refusal, demo:planted]")
    closure, segments = done.table("closure"), done.table("closure_segments")
    assert len(set(segments["segment"])) == len(segments) == 2
    assert segments["tax"].sum() == pytest.approx(closure["tax"].iloc[0], abs=1e-6)
    parts = done.table("attribution_segments").query("level == 'component'").groupby("component")["effect"].sum()
    whole = done.table("attribution").set_index("component")["effect"]
    assert whole.to_numpy() == pytest.approx(parts[whole.index].to_numpy(), abs=1e-9)
    assert set(done.table("attribution_segments")["level"]) == {"component", "singular"}
    assert len(done.manifest["pair"]["chain"]) == 2
    path = done.table("path").query("metric == 'nll'")
    assert path["t"].max() == 1


def test_a_list_of_seeds_is_attributed_one_by_one_and_compared(tmp_path):
    done = written(
        tmp_path, "metrics: [nll], levels: [component]", "[demo:refusal, demo:planted]", more=", several: seeds"
    )
    seeds = done.table("attribution_seeds")
    assert (seeds["seeds"] == 2).all()
    assert seeds["same_sign"].dropna().between(0, 1).all()
    assert "closure_segments" not in done.tables
    assert done.table("closure")["gradients"].max() <= 7


def test_the_pair_walks_its_checkpoints_and_sums_to_the_same_tax():
    suite = taxlens.suite("demo:facts").subset(range(3))
    options = {"metrics": ("nll",), "max_gradients": 3, "tokens": False, "perplexity": False}
    pair = taxlens.load_pair("demo:base", ["demo:refusal", "demo:planted"])
    straight = taxlens.load_pair("demo:base", "demo:planted").attribute(suite, **options)
    assert len(pair.steps) == 1
    assert len(pair.polyline(suite, **options).segments) == 2
    tax = pair.attribute(suite, **options).taxes("facts", "nll")
    assert tax == pytest.approx(straight.taxes("facts", "nll"), abs=1e-4)


def test_two_lists_at_once_are_refused():
    with pytest.raises(ConfigError, match="a chain is a list of aligned or a list of adapters"):
        load_chain("demo:base", ["demo:planted", "demo:refusal"], adapter=["a", "b"])
    with pytest.raises(ConfigError, match="a chain is a list"):
        load_chain("demo:base", [])


def test_an_unknown_metric_of_attribution_is_refused_by_the_config(tmp_path):
    with pytest.raises(ConfigError, match=r"attribution\.metrics"):
        written(tmp_path, "metrics: [bleu], levels: [component]")


def test_the_closure_says_whether_the_path_may_be_walked(full):
    closure = full.table("closure").query("method == 'path'")
    assert (closure["barrier"] >= 0).all()
    assert closure["fit"].astype(str).eq("True").all()


def test_figures_of_a_path_over_a_barrier_are_marked(full):
    from taxlens.stages.attribute.attribution_figure import draw_attribution

    frame, closure = full.table("attribution"), full.table("closure")
    walked = {"closure": closure.assign(closed=True, fit=True), "suite": "facts", "metric": "accuracy"}
    assert "Not settled" not in draw_attribution(frame, **walked).caption
    marked = draw_attribution(frame, **(walked | {"closure": closure.assign(fit=False, barrier=0.4)}))
    assert "rises 40 % above the line" in marked.caption

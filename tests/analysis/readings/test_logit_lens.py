"""The logit lens: at the last layer the model itself, below it what norm and head make of the stream."""

import numpy as np
import pytest
import torch

import taxlens
from taxlens.activations.models.prompts import as_asked
from taxlens.analysis.readings.logit_lens import lens_scores, logit_lens
from taxlens.analysis.scoring.choices import score_suite
from taxlens.core.errors import SelfCheckError, UsageError
from taxlens.stages.lens.lens_figure import draw_lens


@pytest.fixture(scope="module")
def pair():
    return taxlens.load_pair("demo:base", "demo:planted")


@pytest.fixture(scope="module")
def facts():
    suite = taxlens.suite("demo:facts")
    return suite.subset(np.linspace(0, len(suite) - 1, 24).astype(int))


@pytest.fixture(scope="module")
def lens(pair, facts):
    return pair.logit_lens(facts, bootstrap=200)


def test_the_last_layer_is_the_model_itself(pair, facts, lens):
    frame = lens.to_frame().set_index(["model", "layer", "metric"])["value"]
    for name, model in (("base", pair.models.base), ("aligned", pair.models.aligned)):
        scores = score_suite(model, facts).metrics(("probability", "margin"))
        for metric in ("probability", "margin"):
            assert frame[name, 3, metric] == pytest.approx(scores[metric].mean(), abs=1e-5)


def test_a_layer_below_is_what_norm_and_head_make_of_its_stream(pair, facts):
    model = pair.models.base
    rows = as_asked(pair.models, model, "plain").rows(facts)[:5]
    found = lens_scores(model, rows)
    for n, row in enumerate(rows):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            states = model.model(ids, output_hidden_states=True).hidden_states
            logits = model.model.lm_head(model.model.model.norm(states[2]))[0].log_softmax(-1)
        want = sum(float(logits[p - 1, row.ids[p]]) for p in range(row.start, len(row.ids)))
        assert found[1, n] == pytest.approx(want, abs=1e-4)


def test_a_model_against_itself_differs_nowhere(facts):
    same = taxlens.load_pair("demo:base", "demo:base")
    frame = same.logit_lens(facts, bootstrap=50).to_frame()
    assert (frame.loc[frame["model"] == "difference", "value"] == 0).all()


def test_the_planted_loss_is_seen_at_the_planted_layer_and_not_before(lens):
    frame = lens.to_frame()
    rows = frame[(frame["metric"] == "probability") & (frame["model"] == "difference")].set_index("layer")
    assert abs(rows.loc[0, "value"]) < 0.05
    assert rows.loc[3, "low"] > 0.2
    assert "largest difference" in repr(lens)


def test_the_difference_is_base_minus_aligned(lens):
    wide = lens.to_frame().pivot(index=["layer", "metric"], columns="model", values="value")
    assert wide["difference"].to_numpy() == pytest.approx((wide["base"] - wide["aligned"]).to_numpy(), abs=1e-12)


def test_a_stream_that_the_head_does_not_read_is_refused(pair, facts):
    model = pair.models.base
    norm = model.model.model.norm
    handle = norm.register_forward_hook(lambda module, args, output: output + (output.ndim == 3) * 1.0)
    try:
        with pytest.raises(SelfCheckError, match="output head"):
            logit_lens(pair.models, facts)
    finally:
        handle.remove()


def test_the_figure_shows_both_models_and_names_what_is_missing(lens):
    drawn = draw_lens(lens.to_frame(), suite="facts")
    assert set(drawn.plotted["model"]) == {"base", "aligned", "difference"}
    with pytest.raises(UsageError, match="logit lens"):
        draw_lens(lens.to_frame(), suite="other")


def test_a_run_with_the_section_writes_the_table_and_the_figure(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: c\npair: {base: demo:base, aligned: demo:planted}\nsuites: [{name: facts, file: demo:facts}]\n"
        "templates: [plain]\ntax: {bootstrap: 100}\nlens: {items: 24}\nstages: [tax, lens, figures]\n"
    )
    run = taxlens.run(config, out=tmp_path / "run")
    table = run.table("logit_lens")
    assert set(table["layer"]) == {0, 1, 2, 3}
    assert table["n_items"].max() <= 24
    assert (tmp_path / "run" / "figures" / "logit_lens_facts_plain.pdf").is_file()

"""What an account is judged by: gate, cut, controls, rivals, components, both models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.account_run import account_dictionaries, account_features
from taxlens.analysis.features.cut_account import cut_account
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.feature_controls import control_features
from taxlens.analysis.features.feature_report import report_features
from taxlens.analysis.features.feature_tables import FEATURE_TABLES
from taxlens.analysis.features.give_back import coded_change, suite_streams
from taxlens.analysis.features.latent_components import component_frame
from taxlens.analysis.features.latents_in_models import changed_latents, dictionary_frame, latents_frame
from taxlens.core.errors import CheckError, UsageError


@pytest.fixture(scope="module")
def account(embedded_pair, few_facts, change_dictionary):
    return account_features(embedded_pair, few_facts, change_dictionary, metrics=("probability",), max_gradients=7)


@pytest.fixture(scope="module")
def random_one(embedded_pair):
    generator = torch.Generator().manual_seed(4)
    d = embedded_pair.base.anatomy.d_model
    decoder = torch.randn(2 * d, d, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    zero = torch.zeros(2 * d), torch.zeros(1, d)
    return Dictionary(
        decoder.T[None].clone(), decoder[None], *zero, kind="topk", k=4, site="resid_post", layer=1, source="random"
    )


def test_account_closes_to_a_hundredth_of_the_tax_in_seven_gradients(account):
    closure = account.closure_frame().set_index("metric")
    assert closure["unexplained_share"].abs().max() < 0.01
    assert closure["gradients"].max() <= 7
    listed = account.to_frame()
    for metric, mine in listed.groupby("metric"):
        assert mine["effect"].sum() == pytest.approx(closure.loc[metric, "tax"], rel=1e-9)


def test_dictionary_of_the_change_passes_the_gate_and_a_random_one_is_refused(
    account, embedded_pair, few_facts, random_one
):
    assert account.explained("facts")[0].value > 0.9
    found = account_features(embedded_pair, few_facts, random_one, metrics=("probability",), max_gradients=7)
    assert not found.closure_frame()["gate"].any()
    with pytest.raises(CheckError, match="random decoders"):
        found.ranked("facts")
    assert len(found.ranked("facts", anyway=True)) > 10


def test_one_walk_of_two_dictionaries_gives_each_what_it_has_alone(account, embedded_pair, few_facts, random_one):
    both = account_dictionaries(
        embedded_pair, few_facts, {"components": account.dictionary, "random": random_one}, metrics=("probability",),
        max_gradients=7,
    )  # fmt: skip
    again = both["components"].suites["facts"].mean("probability")
    assert np.allclose(again, account.suites["facts"].mean("probability"), atol=1e-12)


def test_few_items_keep_their_own_places(embedded_pair, few_facts, change_dictionary):
    found = account_features(embedded_pair, few_facts, change_dictionary, metrics=("nll",), items=5, max_gradients=7)
    kept = found.suites["facts"]
    assert len(kept.items) == 5
    assert [few_facts.items[p].id for p in kept.places] == list(kept.items)


def test_account_at_the_cut_closes_and_agrees_with_the_path(embedded_pair, few_facts, account):
    frame = cut_account(embedded_pair, few_facts, account).to_frame()
    assert frame["unexplained_share"].abs().max() < 1e-3
    assert frame["agreement"].min() > 0.7
    assert np.allclose(frame["stream"] + frame["upper"], account.closure_frame()["tax"])


def test_all_latents_given_back_return_what_the_whole_change_does(embedded_pair, few_facts, account):
    streams = suite_streams(embedded_pair, few_facts, Address("resid_post", 1))
    codes = coded_change(streams, account.dictionary)
    written = codes.written(None, streams.base)
    assert (written - streams.moved).norm() < 0.3 * streams.moved.norm()
    metric = {"probability": "probability"}
    whole = streams.returned(streams.moved, metric, "restored")["probability"].mean()
    assert streams.returned(written, metric, "restored")["probability"].mean() == pytest.approx(whole, rel=0.15)
    assert np.abs(streams.returned(0 * streams.moved, metric, "restored")["probability"]).max() < 1e-6


def test_whole_stream_of_base_put_into_aligned_gives_the_cut_s_stream_part(embedded_pair, few_facts, account):
    streams = suite_streams(embedded_pair, few_facts, Address("resid_post", 1))
    given = (streams.base - streams.aligned) * streams.real[:, None]
    returned = streams.returned(given, {"probability": "probability"}, "restored")["probability"].mean()
    frame = cut_account(embedded_pair, few_facts, account).to_frame().set_index("metric")
    assert returned == pytest.approx(frame.loc["probability", "stream"], abs=1e-5)


def test_controls_are_cross_fitted_and_beat_others_of_equal_mass(embedded_pair, few_facts, account):
    found = control_features(embedded_pair, few_facts, account, leading=4, draws=3)
    leading = next(one for one in found.given if one.what == "leading" and one.side == "restored")
    assert found.ahead("probability").value > 0
    assert found.slope("probability").value == pytest.approx(
        leading.returned["probability"].sum() / leading.predicted["probability"].sum()
    )
    frame = found.to_frame()
    assert set(frame["what"]) >= {
        "leading",
        "all",
        "matched_mass",
        "matched_rate",
        "adl",
        "pca",
        "probe",
        "random_rank",
    }
    assert set(frame["side"]) == {"restored", "removed", "both"}
    everything = frame[(frame["what"] == "all") & (frame["side"] == "restored")]["returned"]
    assert (everything > 0).all()


def test_components_of_a_latent_sum_to_its_measured_change(embedded_pair, few_facts, account):
    latents = account.chosen("facts")[:2]
    frame = component_frame(embedded_pair, few_facts, account, latents, items=6)
    assert frame["closure"].abs().max() < 1e-3
    assert frame["layer"].max() <= 1
    assert set(frame["latent"]) == {str(j) for j in latents}


def test_flipped_groups_are_flagged_at_the_level_and_a_shift_is_found():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    null = rng.standard_normal((120, 400)) + rng.standard_normal((30, 400))[groups]
    p, adjusted = changed_latents(null, groups, draws=999)
    assert 0.03 <= (p < 0.05).mean() <= 0.07
    assert (adjusted < 0.05).mean() <= 0.005
    shifted = null.copy()
    shifted[:, 7] += 3
    assert changed_latents(shifted, groups, draws=999)[1][7] < 0.01


def test_dictionary_of_another_model_is_said_by_its_variance_explained(embedded_pair, few_facts, random_one):
    streams = suite_streams(embedded_pair, few_facts, Address("resid_post", 1))
    frame = dictionary_frame(streams, random_one, name="random", template="plain")
    assert frame["note"].str.contains("explains no variance").all()
    whole = Dictionary(
        torch.cat([torch.eye(96), -torch.eye(96)], dim=1)[None], torch.cat([torch.eye(96), -torch.eye(96)])[None],
        torch.zeros(192), torch.zeros(1, 96), site="resid_post", layer=1,
    )  # fmt: skip
    good = dictionary_frame(streams, whole, name="identity", template="plain")
    assert good["explained"].min() == pytest.approx(1, abs=1e-5)
    assert good["loss_recovered"].min() == pytest.approx(1, abs=1e-4)
    assert good["note"].isna().all()


def test_latent_that_fires_alike_in_both_models_is_intact(embedded_pair, few_facts):
    from taxlens.activations.models.pair import make_pair

    same = make_pair(embedded_pair.base, embedded_pair.base)
    streams = suite_streams(same, few_facts, Address("resid_post", 1))
    direction = streams.base[streams.read].mean(0)
    rows = torch.stack([direction / direction.norm(), -direction / direction.norm()])
    one = Dictionary(rows.T[None].clone(), rows[None], torch.zeros(2), torch.zeros(1, 96), site="resid_post", layer=1)
    row = latents_frame(streams, one, [0], name="one", template="plain").iloc[0]
    assert row["state"] in ("intact", "undetermined")
    assert row["nu_error"] == pytest.approx(1, abs=1e-5)
    assert row["difference"] == 0


def test_dictionary_of_another_width_or_without_its_place_is_refused(embedded_pair, few_facts, change_dictionary):
    narrow = Dictionary(
        torch.ones(1, 5, 3), torch.ones(1, 3, 5), torch.zeros(3), torch.zeros(1, 5), site="resid_post", layer=0
    )
    with pytest.raises(CheckError, match="another width"):
        account_features(embedded_pair, few_facts, narrow)
    with pytest.raises(CheckError, match="do not say where"):
        account_features(embedded_pair, few_facts, dataclasses.replace(change_dictionary, layer=-1))
    with pytest.raises(UsageError, match="layer out of range"):
        account_features(embedded_pair, few_facts, dataclasses.replace(change_dictionary, layer=9))
    with pytest.raises(UsageError, match="transcoder"):
        account_features(embedded_pair, few_facts, dataclasses.replace(change_dictionary, role="transcoder"))


def test_crosscoder_is_read_with_both_its_decoders(embedded_pair, few_facts, account):
    generator = torch.Generator().manual_seed(1)
    decoder = torch.randn(2, 150, 96, generator=generator)
    decoder /= decoder.norm(dim=2, keepdim=True)
    one = Dictionary(
        decoder.transpose(1, 2).clone(), decoder, torch.full((150,), -1.0), torch.zeros(2, 96), role="crosscoder",
        site="resid_post", layer=1,
    )  # fmt: skip
    found = account_features(embedded_pair, few_facts, one, metrics=("probability",), max_gradients=7)
    assert found.closure_frame()["unexplained_share"].abs().max() < 0.01
    with pytest.raises(UsageError, match="one code for both models"):
        account_features(embedded_pair, few_facts, one, reading="encoder")


def test_report_fills_every_table_by_its_declaration(embedded_pair, few_facts, change_dictionary):
    found = report_features(
        embedded_pair, few_facts, change_dictionary, metrics=("probability",), max_gradients=7, draws=1, leading=3,
        components=1, component_items=3, named=4, bootstrap=200,
    )  # fmt: skip
    for table in FEATURE_TABLES:
        assert len(table.check(found.tables[table.name])) > 0, table.name
    assert "most returned by" in repr(found)
    contexts = found.tables["features_contexts"]
    for _, mine in contexts.groupby(["latent", "rank"]):
        strength = mine[["base", "aligned"]].max(axis=1)
        assert strength[mine["offset"] == 0].item() > 0
        assert mine["offset"].tolist() == list(range(mine["offset"].min(), mine["offset"].max() + 1))
    named = found.tables["features_names"]
    first = named[(named["kind"] == "context") & (named["rank"] == 1)].set_index("latent")["value"]
    strongest = contexts[(contexts["rank"] == 1) & (contexts["offset"] == 0)].set_index("latent")["aligned"]
    assert strongest.to_dict() == pytest.approx(first.to_dict())


def test_each_claim_says_which_control_it_passed(embedded_pair, few_facts, change_dictionary, random_one):
    found = report_features(
        embedded_pair, few_facts, {"components": change_dictionary, "random": random_one}, metrics=("probability",),
        max_gradients=7, draws=1, leading=3, components=0, named=2, bootstrap=200, rivals=("adl", "random_rank"),
        unaligned={"itself": embedded_pair.base}, unaligned_items=6,
    )  # fmt: skip
    claims = found.tables["features_claims"]
    passed = claims.groupby(["dictionary", "claim", "control"])["passed"].all().to_dict()
    seen = "sees the change"
    assert passed["components", seen, "as many random decoders"]
    assert passed["components", seen, "the same dictionary with its coordinates shuffled"]
    assert not passed["random", seen, "as many random decoders"]
    assert not passed["random", seen, "the same dictionary with its coordinates shuffled"]
    assert not passed["random", "reads both models", "variance explained, the worse model"]
    quiet = claims[claims["claim"] == "is quiet without alignment"].set_index(["dictionary", "control"])["value"]
    assert quiet["components", "itself"] == 0
    assert 0 < quiet["components", "the base with rounded weights"] < 0.1
    assert {"both", "restored", "removed"} == set(found.tables["features_controls"]["side"])


def test_dictionary_finds_the_same_as_itself(embedded_pair, few_facts, change_dictionary):
    twice = {"one": change_dictionary, "two": change_dictionary}
    found = report_features(
        embedded_pair, few_facts, twice, metrics=("probability",), max_gradients=7, draws=1, leading=3, components=0,
        named=2, bootstrap=200, rivals=(), cut=False, items=8,
    )  # fmt: skip
    claims = found.tables["features_claims"]
    same = claims[claims["claim"] == "another dictionary finds the same"]
    assert same["value"].tolist() == pytest.approx([1.0, 1.0])
    assert set(same["control"]) == {"one", "two"}

import hashlib

import h5py
import numpy as np
import pytest
import torch

from taxlens.activations.capture import capture as capturing
from taxlens.activations.capture import collect
from taxlens.activations.capture.capture import capture
from taxlens.activations.capture.estimate import estimate
from taxlens.activations.capture.row_plan import make_plan
from taxlens.activations.hooks.hooks import reading, run_backbone
from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.batches import pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.sampling import draw_foil
from taxlens.activations.items.tokens import encode_prompts
from taxlens.activations.store.direct_io import PAGE
from taxlens.activations.store.store import Store, inspect, verify
from taxlens.core.errors import CheckError, ItemError, ModelLoadError, PairMismatchError, StoreError, UsageError

SMALL = 6000  # bytes a shard: several shards for a dozen items


def hashes(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.*")) if p.is_file()}


def direct(loaded, row, site: str, layer: int) -> torch.Tensor:
    """The activations of one unpadded row, read on their own [token, ...]."""
    found = []
    with reading(loaded.model, loaded.anatomy, [Address(site, layer)], lambda _, x: found.append(x[0].clone())):
        run_backbone(loaded.anatomy, *pad([row], 0))
    return found[0]


@pytest.fixture(scope="module")
def store(make_pair, suite, texts, tmp_path_factory):
    to = tmp_path_factory.mktemp("store") / "acts.h5"
    with capture(make_pair(), [suite, texts], to=to, templates=("plain", "chat"), shard_bytes=SMALL) as store:
        yield store


def test_stored_rows_are_what_the_model_computes_alone(store, make_pair, suite):
    pair = make_pair()
    rows = store.rows
    prompts = encode_prompts(suite, pair.base.tokenizer)
    for name, loaded in pair.models():
        stored = store.read("resid_post", 1, model=name)
        for number in (0, 5, 11):
            (at,) = store.select(suite="facts", template="plain", kind="prompt", item=f"f{number}")
            truth = direct(loaded, prompts[number], "resid_post", 1)[-1]
            torch.testing.assert_close(torch.from_numpy(stored[at]), truth, rtol=1e-4, atol=1e-4)
            assert rows["position"][at] == len(prompts[number].ids) - 1


def test_base_and_aligned_rows_differ_and_are_finite(store):
    base, aligned = store.read("resid_post", 1), store.read("resid_post", 1, model="aligned")
    assert base.shape == aligned.shape == (store.n_rows, 32)
    assert np.isfinite(base).all()
    assert not np.allclose(base, aligned)


def test_rows_are_known_by_suite_template_item_and_choice(store):
    rows = store.rows
    assert not rows.duplicated(["suite", "template", "item", "choice"]).any()
    assert rows.groupby(["suite", "template", "kind"]).size().to_dict() == {
        **{("facts", t, k): 12 for t in ("plain", "chat") for k in ("prompt", "gold", "foil")},
        **{("texts", t, "text"): 6 for t in ("plain", "chat")},
    }


def test_labels_stand_on_prompt_and_text_rows_and_correct_on_the_others(store):
    rows = store.rows
    choice = rows["kind"].isin(["gold", "foil"])
    assert rows.loc[choice, "correct"].tolist() == [float(kind == "gold") for kind in rows.loc[choice, "kind"]]
    assert rows.loc[~choice, "correct"].isna().all()
    assert rows.loc[choice, ["label.parity", "label.relation", "label.truth"]].isna().all().all()
    prompts = rows[rows["kind"] == "prompt"]
    assert prompts["label.parity"].dtype == float
    assert set(prompts["label.relation"]) == {"r0", "r1", "r2"}
    assert rows.loc[rows["suite"] == "texts", "label.relation"].isna().all()


def test_gold_and_foil_are_read_at_the_choices_last_token(store, make_pair, suite):
    for at in store.select(template="plain", kind="gold")[:3]:
        row = store.rows.loc[at]
        item = next(item for item in suite.items if item.id == row["item"])
        assert row["choice"] == item.gold
        assert row["token"] == item.choices[item.gold].split()[-1]


def test_foils_are_wrong_and_depend_on_the_seed_alone(suite):
    drawn = [[draw_foil("facts", item, seed) for item in suite.items] for seed in range(20)]
    assert drawn[0] == [draw_foil("facts", item, 0) for item in suite.items]
    assert all(foil != item.gold for foils in drawn for foil, item in zip(foils, suite.items, strict=True))
    assert len({tuple(foils) for foils in drawn}) > 1
    assert {foils[0] for foils in drawn} == {1, 2}


def test_captured_twice_gives_the_same_bytes(make_pair, suite, tmp_path):
    for name in ("one", "two"):
        capture(make_pair(), suite, to=tmp_path / name / "acts.h5", shard_bytes=SMALL).close()
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert len(one) > 4
    assert one == two


def test_store_opens_in_plain_h5py_from_anywhere(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File(store.view) as file:
        np.testing.assert_array_equal(file["aligned/resid_post"][1], store.read("resid_post", 1, model="aligned"))
        assert file["base/resid_post"].attrs["layers"].tolist() == [0, 1]
        assert file["base/resid_post"].attrs["dtype"] == "float32"
        assert [t.decode() for t in file["rows/item"][:3]] == store.rows["item"][:3].tolist()


def test_reads_by_slice_by_number_and_by_mask_agree(store):
    whole = store.read("resid_post", 0)
    np.testing.assert_array_equal(store.read("resid_post", 0, rows=slice(7, 61)), whole[7:61])
    np.testing.assert_array_equal(store.read("resid_post", 0, rows=slice(60, None, -7)), whole[60::-7])
    picked = np.array([70, 3, 3, -1, 20])
    np.testing.assert_array_equal(store.read("resid_post", 0, rows=picked), whole[picked])
    mask = (store.rows["kind"] == "gold").to_numpy()
    np.testing.assert_array_equal(store.read("resid_post", 0, rows=mask), whole[mask])
    assert store.read("resid_post", 0, rows=[]).shape == (0, 32)


def test_blocks_join_to_the_whole(store):
    for rows in (None, slice(5, 50), np.array([9, 2, 70])):
        blocks = list(store.blocks("resid_post", 1, rows=rows, size=16))
        for which, model in enumerate(("base", "aligned")):
            whole = store.read("resid_post", 1, model=model, rows=rows)
            np.testing.assert_array_equal(np.concatenate([block[which] for block in blocks]), whole)


def test_reading_what_is_not_there_is_refused(store):
    with pytest.raises(UsageError, match="resid_pst"):
        store.read("resid_pst", 0)
    with pytest.raises(UsageError, match="does not hold this layer"):
        store.read("resid_post", 2)
    with pytest.raises(UsageError, match="must be one of"):
        store.read("resid_post", 0, model="tuned")
    with pytest.raises(UsageError, match="row out of range"):
        store.read("resid_post", 0, rows=[store.n_rows])


def test_inspect_says_what_a_store_holds_in_a_page(store):
    page = str(inspect(store.view))
    assert "rows       84 in" in page
    assert "facts / chat / gold: 12" in page
    assert "coverage   facts / chat: mean 100.0%" in page
    assert len(page.splitlines()) < 40
    assert verify(store.folder).rows == store.n_rows


@pytest.mark.parametrize("layout", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_all_sites_are_stored_with_their_shapes(make_pair, suite, tmp_path, layout):
    pair = make_pair(layout)
    sites = ["mlp_post", "head_z", "attn_out", "mlp_out", "resid_pre", "resid_post"]
    few = suite.subset(range(3))
    with capture(pair, few, to=tmp_path / "all", sites=sites, layers=[1], positions="all") as store:
        assert store.sites == ("resid_pre", "resid_post", "attn_out", "mlp_out", "head_z", "mlp_post")
        assert store.read("head_z", 1).shape[1:] == (4, 8)
        assert store.read("mlp_post", 1).shape[1:] == (pair.base.anatomy.d_mlp,)
        arithmetic = store.read("resid_pre", 1) + store.read("attn_out", 1) + store.read("mlp_out", 1)
        np.testing.assert_allclose(arithmetic, store.read("resid_post", 1), rtol=1e-4, atol=1e-4)


def test_parallel_model_has_no_resid_mid(make_pair, suite, tmp_path):
    with pytest.raises(UsageError, match="no resid_mid"):
        capture(make_pair("gpt_neox"), suite, to=tmp_path / "x", sites=["resid_mid"])


def test_all_positions_hold_every_token_of_prompts_in_order(make_pair, suite, tmp_path):
    pair = make_pair()
    with capture(pair, suite, to=tmp_path / "all.h5", positions="all", shard_bytes=SMALL) as store:
        for row in encode_prompts(suite, pair.base.tokenizer)[:4]:
            at = store.select(item=f"f{row.item}", kind="prompt")
            assert store.rows["token_id"][at].tolist() == list(row.ids)
            assert store.rows["position"][at].tolist() == list(range(len(row.ids)))
            truth = direct(pair.base, row, "resid_post", 0)
            np.testing.assert_allclose(store.read("resid_post", 0, rows=at), truth, rtol=1e-4, atol=1e-4)


def test_mean_position_is_the_mean_of_all_positions(make_pair, suite, tmp_path):
    pair = make_pair()
    with (
        capture(pair, suite, to=tmp_path / "all.h5", positions="all") as every,
        capture(pair, suite, to=tmp_path / "mean.h5", positions="mean") as mean,
    ):
        for number in (0, 7):
            tokens = every.read("resid_post", 1, rows=every.select(item=f"f{number}", kind="prompt"))
            (at,) = mean.select(item=f"f{number}", kind="prompt")
            got = mean.read("resid_post", 1, rows=[at])[0]
            np.testing.assert_allclose(got, tokens.mean(0), rtol=1e-4, atol=1e-5)


def test_answer_positions_hold_every_token_of_the_choice(make_pair, suite, tmp_path):
    with capture(make_pair(), suite, to=tmp_path / "answer.h5", positions="answer") as store:
        for item in suite.items:
            at = store.select(item=item.id, kind="gold")
            assert store.rows["token"][at].tolist() == item.choices[item.gold].split()


def test_span_position_is_the_last_token_of_the_labelled_text(make_pair, tmp_path):
    items = tuple(
        Item(id=str(n), group=str(n), prompt=f"w1 w2 w{n} w4 w5", labels={"subject": f"w2 w{n}"}) for n in (10, 11)
    )
    suite = Suite(name="s", items=items)
    with capture(
        make_pair(), suite, to=tmp_path / "span.h5", positions="span:subject", templates=("plain", "chat")
    ) as s:
        assert s.rows["token"].tolist() == ["w10", "w10", "w11", "w11"]
    with pytest.raises(ItemError, match="a labelled span is not in the item"):
        make_plan(make_pair(), [suite], positions="span:object")


def test_last_position_is_the_last_of_all_positions(make_pair, texts, tmp_path):
    with (
        capture(make_pair(), texts, to=tmp_path / "all.h5", positions="all", templates=["chat"]) as every,
        capture(make_pair(), texts, to=tmp_path / "last.h5", templates=["chat"]) as last,
    ):
        for item in texts.items:
            end = every.select(item=item.id)[-1:]
            np.testing.assert_allclose(
                every.read("resid_post", 1, rows=end),
                last.read("resid_post", 1, rows=last.select(item=item.id)),
                rtol=1e-5,
                atol=1e-6,
            )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_store_is_the_rounding_of_the_exact_one(make_pair, suite, tmp_path, dtype):
    with (
        capture(make_pair(), suite, to=tmp_path / "exact.h5") as exact,
        capture(make_pair(), suite, to=tmp_path / "half.h5", dtype=dtype) as half,
    ):
        truth = torch.from_numpy(exact.read("resid_post", 1)).to(getattr(torch, dtype))
        np.testing.assert_array_equal(half.read("resid_post", 1), truth.float().numpy())
        stored = half.read_stored("resid_post", 1)
        assert stored.dtype == (np.uint16 if dtype == "bfloat16" else np.float16)
        with h5py.File(half.view) as file:
            assert file["base/resid_post"].attrs["dtype"] == dtype
            np.testing.assert_array_equal(file["base/resid_post"][1], stored)


def test_bfloat16_model_is_kept_bit_for_bit(make_checkpoint, suite, tmp_path):
    from taxlens.activations.models.pair import load_pair

    pair = load_pair(make_checkpoint(), make_checkpoint(drift=0.05), dtype="bfloat16", device="cpu")
    few = suite.subset([4])
    with capture(pair, few, to=tmp_path / "b.h5", dtype="bfloat16", positions="all") as store:
        (row,) = encode_prompts(few, pair.base.tokenizer)
        at = store.select(kind="prompt")
        got = torch.from_numpy(store.read_stored("resid_post", 1, rows=at).view(np.int16)).view(torch.bfloat16)
        truth = direct(pair.base, row, "resid_post", 1)
        assert got.shape == truth.shape
        np.testing.assert_allclose(got.float(), truth.float(), rtol=2e-2, atol=2e-2)
        assert torch.equal(got.float(), torch.from_numpy(store.read("resid_post", 1, rows=at)))


def test_gzip_store_reads_back_the_same(make_pair, suite, tmp_path):
    with (
        capture(make_pair(), suite, to=tmp_path / "plain.h5", shard_bytes=SMALL) as plain,
        capture(make_pair(), suite, to=tmp_path / "zip.h5", compress="gzip", shard_bytes=SMALL) as packed,
    ):
        np.testing.assert_array_equal(plain.read("resid_post", 1), packed.read("resid_post", 1))
        verify(packed.folder)


def test_overflow_of_float16_is_refused_with_address_item_and_remedy(make_pair, make_checkpoint, suite, tmp_path):
    import dataclasses

    from taxlens.activations.models.pair import load_pair

    pair = load_pair(make_checkpoint(), make_checkpoint(drift=0.05), device="cpu")
    pair.aligned.model.model.layers[1].mlp.down_proj.weight.mul_(1e6)
    with pytest.raises(CheckError, match="does not fit float16") as found:
        capture(pair, suite, to=tmp_path / "x.h5", dtype="float16")
    assert "resid_post.1" in str(found.value)
    assert "aligned" in str(found.value)
    assert "facts/f" in str(found.value)
    with pytest.raises(StoreError, match="unfinished"):
        Store.open(tmp_path / "x.h5")
    pair.aligned.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(CheckError, match=r"NaN or infinite|not what the model computes"):
        capture(dataclasses.replace(pair), suite, to=tmp_path / "y.h5")


def test_memory_running_out_halves_the_budget_for_both_models(make_pair, suite, tmp_path, monkeypatch):
    true = collect.run_backbone
    widths = []

    def short(parts, ids, mask, positions):
        if ids.numel() > 40:
            raise torch.OutOfMemoryError("out of memory")
        widths.append(ids.numel())
        return true(parts, ids, mask, positions)

    monkeypatch.setattr(collect, "run_backbone", short)
    with capture(make_pair(), suite, to=tmp_path / "short.h5", batch_tokens=100, shard_bytes=SMALL) as store:
        budgets = [entry["batch_tokens"] for entry in store.manifest["shards"]]
    assert max(widths) <= 40
    assert 25 in budgets or 50 in budgets
    monkeypatch.setattr(collect, "run_backbone", true)
    with capture(make_pair(), suite, to=tmp_path / "long.h5", batch_tokens=100) as whole:
        np.testing.assert_allclose(store.read("resid_post", 1), whole.read("resid_post", 1), rtol=1e-4, atol=1e-4)


def test_memory_running_out_on_one_sequence_says_so(make_pair, suite, tmp_path, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(collect, "run_backbone", short)
    with pytest.raises(StoreError, match="with a single sequence"):
        capture(make_pair(), suite, to=tmp_path / "short.h5")


def test_other_errors_of_the_model_are_not_taken_for_memory(make_pair, suite, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(collect, "run_backbone", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        capture(make_pair(), suite, to=tmp_path / "x.h5")


def test_capture_stops_after_the_last_layer_that_is_asked_for(make_pair, suite, tmp_path):
    pair = make_pair()
    ran = []
    hooks = [m.register_forward_hook(lambda *_a, n=n: ran.append(n)) for n, m in enumerate(pair.base.anatomy.blocks)]
    head = pair.base.model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    plan = capturing.resolve(pair, suite, layers=[0])
    flat = collect.new_buffers(plan, plan.plan.n_rows)
    assert all(values.data_ptr() % PAGE == 0 for values in flat.values())  # the disk may read them itself
    collect.fill(
        pair.base, plan, model="base", span=(0, 3), budget=99,
        buffers=collect.shaped(flat, plan, int(plan.plan.first_row[3])),
    )  # fmt: skip
    for hook in (*hooks, head):
        hook.remove()
    assert set(ran) == {0}


def test_estimate_gives_the_stores_size_and_writes_nothing(make_pair, suite, tmp_path):
    found = estimate(make_pair(), suite, to=tmp_path / "x" / "acts.h5", shard_bytes=SMALL)
    assert list(tmp_path.iterdir()) == []
    assert found.fits
    assert found.minutes > 0
    with capture(make_pair(), suite, to=tmp_path / "acts.h5", shard_bytes=SMALL) as store:
        payload = 2 * 2 * 32 * 4 * store.n_rows
    assert found.rows == store.n_rows
    assert payload <= found.bytes <= payload * 1.03 + 2**20
    assert "rows from" in str(found)


def test_disk_that_cannot_hold_the_store_is_refused_first(make_pair, suite, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(capturing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match="the disk cannot hold this capture"):
        capture(make_pair(), suite, to=tmp_path / "acts.h5")
    assert list(tmp_path.rglob("*.h5")) == []


def test_full_disk_while_writing_leaves_an_unfinished_store_that_resumes(make_pair, suite, tmp_path, monkeypatch):
    from taxlens.activations.store.shard import ShardFile

    true, count = ShardFile.write, []

    def full(self, *args):
        count.append(1)
        if len(count) > 5:
            raise OSError(28, "No space left on device")
        true(self, *args)

    monkeypatch.setattr(ShardFile, "write", full)
    with pytest.raises(StoreError, match="No space left on device"):
        capture(make_pair(), suite, to=tmp_path / "acts.h5", shard_bytes=SMALL)
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(StoreError, match="unfinished"):
        Store.open(tmp_path / "acts.h5")
    monkeypatch.setattr(ShardFile, "write", true)
    capture(make_pair(), suite, to=tmp_path / "acts.h5", shard_bytes=SMALL, resume=True).close()
    verify(tmp_path / "acts.h5")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sites": ["resid_posts"]}, "resid_post"),
        ({"sites": []}, "no site is asked for"),
        ({"layers": [2]}, "layer out of range"),
        ({"layers": []}, "no layer is asked for"),
        ({"layers": "every"}, "must be one of"),
        ({"positions": "first"}, "must be one of"),
        ({"positions": "span:"}, "must be one of"),
        ({"templates": ["plane"]}, "'plain'"),
        ({"templates": []}, "no template is asked for"),
        ({"dtype": "float64"}, "must be one of"),
        ({"compress": "lzma"}, "must be one of"),
        ({"batch_tokens": 0}, "batch_tokens must be a whole number"),
        ({"items": (3, 3)}, "this range of items is not there"),
    ],
)
def test_request_that_makes_no_sense_is_refused_before_anything_is_written(make_pair, suite, tmp_path, options, text):
    with pytest.raises(UsageError, match=text):
        capture(make_pair(), suite, to=tmp_path / "acts.h5", **options)
    assert list(tmp_path.iterdir()) == []


def test_two_suites_of_one_name_are_refused(make_pair, suite):
    with pytest.raises(UsageError, match="two suites have one name"):
        make_plan(make_pair(), [suite, suite])


def test_tokenizers_that_disagree_on_an_item_are_refused_by_item(make_pair, suite):
    import copy
    import dataclasses

    from tokenizers import normalizers

    pair = make_pair()
    other = copy.deepcopy(pair.aligned.tokenizer)
    other.backend_tokenizer.normalizer = normalizers.Replace("w36", "w3")
    odd = dataclasses.replace(pair, aligned=dataclasses.replace(pair.aligned, tokenizer=other))
    with pytest.raises(PairMismatchError, match=r"disagree on an item(.|\n)*'f0'"):
        make_plan(odd, [suite])


def test_template_that_mangles_the_content_is_refused_with_its_coverage(make_pair, suite):
    import dataclasses

    pair = make_pair()
    twice = "{% for m in messages %}<u> {{ m['content'] | replace('w', 'W') }} {{ m['content'] }} </u>{% endfor %} <a> "
    odd = dataclasses.replace(pair, aligned=dataclasses.replace(pair.aligned, chat_template=twice))
    with pytest.raises(PairMismatchError, match=r"too little of an item in common(.|\n)*coverage"):
        make_plan(odd, [suite], templates=["chat"])
    shout = "{% for m in messages %}<u> {{ m['content'] | upper }} </u>{% endfor %} <a> "
    lost = dataclasses.replace(pair, aligned=dataclasses.replace(pair.aligned, chat_template=shout))
    with pytest.raises(ModelLoadError, match="leaves out what is asked"):
        make_plan(lost, [suite], templates=["chat"])


def test_each_models_own_template_is_used_and_content_tokens_are_paired(make_pair, texts, tmp_path):
    import dataclasses

    pair = make_pair()
    longer = "<s> " + pair.aligned.chat_template
    own = dataclasses.replace(pair, aligned=dataclasses.replace(pair.aligned, chat_template=longer))
    with capture(own, texts, to=tmp_path / "own.h5", templates=["chat"], positions="all") as store:
        rows = store.rows
        assert (rows["position_aligned"] == rows["position"] + 1).all()
        assert rows["token"].tolist() == [word for item in texts.items for word in item.text.split()]

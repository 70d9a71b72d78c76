"""Models that a device map spreads out: here over one CPU, with accelerate's hooks where several devices would be."""

import dataclasses
import hashlib

import pytest

from taxlens.activations.capture.capture import capture
from taxlens.activations.models.loading import load_model
from taxlens.activations.models.pair import load_pair, make_pair
from taxlens.core.errors import ModelLoadError

MAP = {
    "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "cpu", "model.norm": "cpu",
    "model.rotary_emb": "cpu", "lm_head": "cpu",
}  # fmt: skip


def shards(folder) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("shard-*.h5"))]


@pytest.mark.parametrize("device", [{"": "cpu"}, MAP, "sequential"], ids=["whole", "by-module", "sequential"])
def test_pair_loaded_by_a_device_map_gives_the_same_bytes(make_checkpoint, suite, tmp_path, device):
    for name, where in (("one", "cpu"), ("mapped", device)):
        pair = load_pair(make_checkpoint(), make_checkpoint(drift=0.05), device=where)
        assert all(not p.is_meta for _, loaded in pair.models() for p in loaded.model.parameters())
        capture(pair, suite, to=tmp_path / name / "acts.h5", positions="all").close()
    assert shards(tmp_path / "mapped") == shards(tmp_path / "one")


def test_modules_with_accelerates_hooks_pass_the_self_check_and_give_the_same_bytes(make_checkpoint, suite, tmp_path):
    from accelerate import dispatch_model

    def hooked(loaded):
        model = dispatch_model(loaded.model, device_map=MAP, force_hooks=True)
        assert hasattr(model.model.layers[1], "_hf_hook")
        return dataclasses.replace(loaded, model=model)

    base, aligned = (load_model(make_checkpoint(drift=d), device="cpu") for d in (0.0, 0.05))
    capture(make_pair(base, aligned), suite, to=tmp_path / "one" / "acts.h5").close()
    with capture(make_pair(hooked(base), hooked(aligned)), suite, to=tmp_path / "mapped" / "acts.h5") as store:
        assert all(check["passed"] for check in store.manifest["self_check"])
    assert shards(tmp_path / "mapped") == shards(tmp_path / "one")


def test_adapter_on_a_mapped_base_shares_what_it_leaves_alone(make_checkpoint, adapter):
    plain = load_pair(make_checkpoint(), adapter=adapter[0], device="cpu")
    mapped = load_pair(make_checkpoint(), adapter=adapter[0], device=MAP)
    want, got = (dict(pair.aligned.model.named_parameters()) for pair in (plain, mapped))
    assert all(bool((want[name] == got[name]).all()) for name in want)
    base = dict(mapped.base.model.named_parameters())
    assert {n for n in base if base[n].data_ptr() == got[n].data_ptr()} >= {"model.embed_tokens.weight"}


def test_device_map_that_forgets_a_module_is_refused_with_the_tensor(make_checkpoint):
    with pytest.raises(ModelLoadError, match=r"(?s)device map leaves weights out.*first model\.embed_tokens\.weight"):
        load_model(make_checkpoint(), device={"model.layers": "cpu", "model.norm": "cpu"})


def test_weights_that_no_device_holds_are_refused(make_checkpoint, tmp_path):
    with pytest.raises(ModelLoadError, match=r"(?s)devices do not hold all weights|cannot be loaded"):
        load_model(make_checkpoint(), device=MAP | {"model.layers.1": "meta"})


def test_gguf_file_over_several_devices_is_refused(make_checkpoint, tmp_path):
    import shutil

    shutil.copytree(make_checkpoint(), tmp_path / "c")
    (tmp_path / "c" / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match=r"(?s)GGUF checkpoint goes to one device.*device: auto"):
        load_model(tmp_path / "c", gguf="small.gguf", device=MAP)

"""An edit is written whole, in its own form, with its card; one that loses harm is refused."""

from types import SimpleNamespace

import pytest
import torch

from taxlens.activations.models.loading import load_model
from taxlens.analysis.editors.edit_files import load_edit
from taxlens.analysis.editors.kinds.refusal_directions import direction_hooks_edit
from taxlens.analysis.editors.kinds.repair import Adapter, adapter_edit, fresh
from taxlens.analysis.editors.outcome import Outcome
from taxlens.analysis.editors.registry import EDITORS
from taxlens.analysis.editors.write_edit import write_edit
from taxlens.analysis.frontier.restore import BenefitLossError, verify_restored
from taxlens.core.errors import UsageError
from taxlens.core.stats.intervals import Interval

IDS = torch.tensor([[1, 9, 12, 30, 8], [1, 20, 21, 22, 23]])


def row(harm, editor="repair"):
    columns = {"harm_kept": Interval(harm, harm - 0.02, harm + 0.02, 0.95, 30, 15, "toy"),
               "returned": Interval(0.8, 0.7, 0.9, 0.95, 30, 15, "toy")}  # fmt: skip
    return SimpleNamespace(editor=EDITORS[editor], outcome=Outcome(columns, {}))


@pytest.fixture
def grown(task):
    generator = torch.Generator().manual_seed(0)
    adapter = fresh(task.pair.aligned.model, ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj"], rank=2)
    b = {name: 0.1 * torch.randn(t.shape, generator=generator) for name, t in adapter.b.items()}
    return adapter_edit(task.pair, "repair", "stage 1", Adapter(adapter.scale, adapter.a, b))


def test_a_checkpoint_is_the_edited_model_and_its_card_says_what_it_kept(task, grown, tmp_path):
    with grown.opened() as model:
        wanted = model(input_ids=IDS).logits
    out = write_edit(task.pair, grown, row(0.99), out=tmp_path / "edited")
    assert torch.allclose(load_model(out).model(input_ids=IDS).logits, wanted, atol=1e-5)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "edited by repair (stage 1)" in card
    assert "| harm_kept | 0.990 [0.970, 1.010] |" in card
    assert "can undo safety training" in card
    assert verify_restored(out) > 2


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_on_top_of_the_aligned_model_is_what_peft_adds(task, grown, tmp_path):
    import copy

    from peft import PeftModel

    with grown.opened() as model:
        wanted = model(input_ids=IDS).logits
    out = write_edit(task.pair, grown, row(0.99), out=tmp_path / "adapter", form="adapter")
    added = PeftModel.from_pretrained(copy.deepcopy(task.pair.aligned.model), str(out))
    assert torch.allclose(added(input_ids=IDS).logits, wanted, atol=1e-4)
    assert sum(path.stat().st_size for path in out.iterdir()) < 100_000


def test_a_steering_file_opens_again(task, tmp_path):
    tensors = {"vector": torch.ones(32), "strength": torch.tensor(0.5)}
    edit = direction_hooks_edit(task.pair, "false_refusal_hooks", "", tensors)
    out = write_edit(task.pair, edit, row(1.0, "false_refusal_hooks"), out=tmp_path / "hooks", form="steering")
    with load_edit(out / "edit.safetensors", task.pair).opened() as model, edit.opened() as _:
        assert model is task.pair.aligned.model
    with pytest.raises(UsageError, match="cannot be written like that"):
        write_edit(task.pair, edit, row(1.0, "false_refusal_hooks"), out=tmp_path / "whole")


def test_an_edit_that_loses_refusals_of_harm_is_refused_unless_that_is_accepted(task, grown, tmp_path):
    with pytest.raises(BenefitLossError, match="loses refusals of harmful prompts"):
        write_edit(task.pair, grown, row(0.6), out=tmp_path / "lost")
    assert not (tmp_path / "lost").exists()
    out = write_edit(task.pair, grown, row(0.6), out=tmp_path / "lost", accept_benefit_loss=True)
    assert "were lost" in (out / "README.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written like that"):
        write_edit(task.pair, grown, row(1.0), out=tmp_path / "other", form="steering")

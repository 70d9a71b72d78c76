"""The fake device refuses what a GPU refuses and counts what makes the host wait."""

from __future__ import annotations

import pytest
import torch

from tests.devices.fake_device import FakeTensor, devices, place_of


def on(place: str, values=(1.0, 2.0, 3.0)) -> FakeTensor:
    return FakeTensor(torch.tensor(values), place)


def test_tensors_of_two_devices_do_not_mix():
    with devices(2), pytest.raises(RuntimeError, match="cuda:0 and cuda:1"):
        on("cuda:0") + on("cuda:1")


def test_a_cpu_tensor_does_not_mix_and_a_number_does():
    with devices():
        with pytest.raises(RuntimeError, match="cpu and cuda:0"):
            on("cuda:0") * torch.ones(3)
        assert (on("cuda:0") * torch.tensor(2.0)).cpu().tolist() == [2.0, 4.0, 6.0]


def test_an_index_may_be_on_the_cpu_and_not_on_another_device():
    with devices(2):
        assert on("cuda:0")[torch.tensor([2])].item() == 3.0
        with pytest.raises(RuntimeError, match="index on cuda:1"):
            on("cuda:0")[FakeTensor(torch.tensor([2]), "cuda:1")]


def test_a_device_tensor_has_no_numpy():
    with devices(), pytest.raises(TypeError, match="numpy"):
        on("cuda:0").numpy()


@pytest.mark.parametrize(
    "wait, kind",
    [
        (lambda x: x.cpu(), "download"),
        (lambda x: x.sum().item(), "item"),
        (lambda x: float(x[0]), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x[x > 1], "nonzero"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torch.empty(3).copy_(x, non_blocking=True), "download"),  # not pinned: it blocks
    ],
)
def test_each_wait_of_the_host_is_counted_once(wait, kind):
    with devices() as traffic:
        wait(on("cuda:0"))
    assert traffic.waits == 1
    assert traffic.kinds[kind] == 1


def test_what_does_not_make_the_host_wait_is_not_counted():
    with devices() as traffic:
        x = torch.ones(3).to("cuda:0", non_blocking=True)
        torch.empty(3, pin_memory=True).copy_(x * 2, non_blocking=True)
        torch.zeros(3, device="cuda:0").add_(x)
    assert traffic.waits == 0


def test_gradients_flow_across_devices_and_hooks_see_where_they_are():
    seen = []
    with devices(2):
        x = on("cuda:0").requires_grad_(True)
        y = (x * 2).to("cuda:1")
        y.register_hook(lambda g: seen.append(g.device))
        (y * y).sum().backward()
        assert x.grad.cpu().tolist() == [8.0, 16.0, 24.0]
        assert place_of(x.grad) == torch.device("cuda:0")
    assert seen == [torch.device("cuda:1")]

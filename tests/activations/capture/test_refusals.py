"""What a capture refuses to write, and what the system refuses to let it write."""

import os

import pytest

from taxlens.activations.capture import capture as capturing
from taxlens.activations.capture import collect
from taxlens.activations.capture.capture import capture
from taxlens.activations.store.store import Store
from taxlens.core.errors import CheckError, StoreError


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_refused_with_its_address_and_item(
    make_pair, suite, tmp_path, monkeypatch, dtype, value
):
    true, seen = collect.Collector.read, []

    def spoilt(self, address, x):
        seen.append(address)
        if len(seen) == 4:
            x = x.clone()
            x[0, :, 3] = value
        true(self, address, x)

    monkeypatch.setattr(collect.Collector, "read", spoilt)
    limit = "does not fit float16" if dtype == "float16" and value == value else "NaN or infinite"
    with pytest.raises(CheckError, match=rf"(?s){limit}.*base.*resid_post\.1.*facts/f.*1 of"):
        capture(make_pair(), suite, to=tmp_path / "x.h5", dtype=dtype, batch_tokens=32)
    with pytest.raises(StoreError, match="unfinished"):
        Store.open(tmp_path / "x.h5")


@pytest.mark.parametrize("step", ["folder", "lock", "manifest", "rename", "view"])
def test_what_the_system_refuses_is_told_with_its_file_and_nothing_looks_finished(
    make_pair, suite, tmp_path, monkeypatch, step
):
    from taxlens.activations.store import lock

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    owner, name = {
        "folder": (capturing.Path, "mkdir"),
        "lock": (lock.os, "open"),
        "manifest": (capturing, "write_manifest"),
        "rename": (os, "replace"),
        "view": (capturing, "write_view"),
    }[step]
    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(StoreError, match=r"(?s)could not be written.*acts.*Permission denied.*permissions"):
        capture(make_pair(), suite, to=tmp_path / "acts.h5")
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"unfinished|no store here"):
        Store.open(tmp_path / "acts.h5")


def test_a_path_below_a_file_is_refused(make_pair, suite, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"(?s)could not be written.*Not a directory"):
        capture(make_pair(), suite, to=tmp_path / "file" / "acts.h5")

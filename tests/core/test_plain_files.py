"""Files of arrays and tensors: what is written is read, and what is damaged is refused in words, whatever is wrong with it."""

import io
import json
import random
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from taxlens.core.errors import CheckError, ConfigError, StoreError, understood
from taxlens.core.json_text import read_sealed, write_sealed
from taxlens.core.plain_files import read_arrays, read_plain, read_tensors, write_arrays, write_plain, write_tensors

VALUE = {
    "a": [1, 2.5, None, True, "x"],
    "b": (np.arange(6.0).reshape(2, 3), np.array(["p", "q"])),
    3: {"c": float("nan")},
}
DEEP = 20_000


def flips(path, count, seed=0):
    """The file with one bit changed, at places spread over it; put back at the end."""
    whole, dice = path.read_bytes(), random.Random(seed)
    for number in range(count):
        at = min(len(whole) - 1, len(whole) * number // count + dice.randrange(max(1, len(whole) // count)))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :])
        yield at
    path.write_bytes(whole)


def test_plain_values_come_back_as_they_were(tmp_path):
    write_plain(tmp_path / "v.npz", VALUE)
    found = read_plain(tmp_path / "v.npz")
    assert found["a"] == VALUE["a"]
    assert isinstance(found["b"], tuple)
    np.testing.assert_array_equal(found["b"][0], VALUE["b"][0])
    assert np.isnan(found[3]["c"])


def test_every_flipped_bit_and_cut_of_our_arrays_is_refused(tmp_path):
    path, wanted = tmp_path / "a.npz", {"x": np.arange(400.0), "y": np.arange(50)}
    write_arrays(path, wanted)
    with np.load(path) as plain:  # any reader of archives opens it
        assert np.array_equal(plain["x"], wanted["x"])
    assert read_arrays(path, title="t", ours=True).keys() == wanted.keys()
    for _ in flips(path, 80):
        with pytest.raises(StoreError, match=r"a\.npz"):
            read_arrays(path, title="t", ours=True)
    whole = path.read_bytes()
    for part in range(20):
        path.write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(StoreError, match="delete it"):
            read_arrays(path, title="t")


def test_arrays_of_others_are_read_without_a_hash(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    assert read_arrays(tmp_path / "a.npz", title="t")["x"].tolist() == [1, 1, 1]
    with pytest.raises(StoreError, match="no hash"):
        read_arrays(tmp_path / "a.npz", title="t", ours=True)


def _npy(header: str) -> bytes:
    text = header.encode() + b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _archive(content: bytes, *, packed: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packed) as archive:
        archive.writestr("x.npy", content)
    return stream.getvalue()


HOSTILE = {
    "empty": b"",
    "no archive": b"x" * 100, "no array": _archive(b"x"), "an array alone": _npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"
    ),
    "far too many numbers": _archive(_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }")),
    "a negative shape": _archive(_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-5,), }")),
    "a header that is no dict": _archive(_npy("[1, 2]")), "a header that is open": _archive(_npy("{'descr': ((((")),
    "an unknown type": _archive(_npy("{'descr': 'q9', 'fortran_order': False, 'shape': (1,), }")),
    "python objects": _archive(_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"cos\nsystem\n."),
    "a bomb": _archive(b"\0" * 50_000_000, packed=zipfile.ZIP_DEFLATED),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays_are_refused(tmp_path, kind):
    (tmp_path / "a.npz").write_bytes(HOSTILE[kind])
    with pytest.raises(ConfigError, match=r"a\.npz"):
        read_arrays(tmp_path / "a.npz", title="t", error=ConfigError)
    with pytest.raises(StoreError):
        read_plain(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "tree", ["[" * DEEP, "{", '{"dict": 5}', '{"array": "b"}', '{"float": "x"}', '{"dict": [[1]]}']
)
def test_a_plain_file_with_a_hostile_tree_is_refused(tmp_path, tree):
    write_arrays(tmp_path / "a.npz", {"tree": np.frombuffer(tree.encode(), dtype=np.uint8)})
    with pytest.raises(StoreError):
        read_plain(tmp_path / "a.npz")


def test_flipped_bits_and_cuts_of_our_tensors_are_refused_or_harmless(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"w": torch.randn(20, 3).bfloat16(), "n": torch.tensor(3), "a": np.ones(7)}, {"said": "x"})
    tensors, metadata = read_tensors(path, title="t")
    assert metadata == {"said": "x"}
    assert tensors["w"].dtype == torch.bfloat16
    assert int(tensors["n"]) == 3
    missed = 0
    for _ in flips(path, 80):
        found = None
        with suppress(StoreError):
            found = read_tensors(path, title="t")[0]
        missed += found is not None
        if found is not None:  # the name of the hash itself: it then counts as a file of others
            assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert missed <= 5
    whole = path.read_bytes()
    for part in range(20):
        path.write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(StoreError):
            read_tensors(path, title="t")


def test_equal_tensors_and_facts_are_equal_bytes(tmp_path):
    held = {name: torch.full((3,), float(n)) for n, name in enumerate("abcdefgh")}
    written = write_tensors(tmp_path / "t.safetensors", held, {"one": "1", "two": "2", "three": "3"}).read_bytes()
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert len(header["__metadata__"]) == 1  # more would stand in another order in every process
    again = write_tensors(tmp_path / "u.safetensors", held, {"three": "3", "two": "2", "one": "1"}).read_bytes()
    assert written == again


def test_tensors_of_others_are_read_without_a_hash(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "t.safetensors", metadata={"format": "pt"})
    assert read_tensors(tmp_path / "t.safetensors", title="t")[1] == {"format": "pt"}


def test_every_changed_character_of_a_sealed_object_is_found(tmp_path):
    path = tmp_path / "s.json"
    write_sealed({"a": 1, "b": [0.1, (2, 3)], "c": {"1": None}}, path)
    assert read_sealed(path, title="t", fix="f") == {"a": 1, "b": [0.1, [2, 3]], "c": {"1": None}}
    whole = path.read_text(encoding="utf-8")
    for at, letter in enumerate(whole):
        if letter.isalnum():
            path.write_text(whole[:at] + ("7" if letter != "7" else "8") + whole[at + 1 :], encoding="utf-8")
            with pytest.raises(StoreError):
                read_sealed(path, title="t", fix="f")


def test_a_seal_may_be_left_away_only_where_it_is_not_needed(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"a": 1}), encoding="utf-8")
    assert read_sealed(path, title="t", fix="f", needed=False) == {"a": 1}
    for content in ('{"a": 1}', "[1]", "{}", '{"a": 1, "seal": "0"}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(StoreError):
            read_sealed(path, title="t", fix="f")


@pytest.mark.parametrize(
    "reason", [KeyError("w"), TypeError("t"), ZeroDivisionError(), RuntimeError("shape\nmore"), AttributeError("x")]
)
def test_what_a_strangers_content_makes_of_its_reader_is_one_error(reason):
    with (
        pytest.raises(ConfigError, match="f.json") as caught,
        understood("t", file="f.json", fix="copy", error=ConfigError),
    ):
        raise reason
    assert type(reason).__name__ in str(caught.value)
    assert "more" not in str(caught.value)


def test_our_own_errors_and_interrupts_pass_as_they_are():
    for error in (StoreError("s"), KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)) as caught, understood("t", file="f", fix="x", error=CheckError):
            raise error
        assert caught.value is error

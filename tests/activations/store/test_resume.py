import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from taxlens.activations.capture import capture as capturing
from taxlens.activations.capture.capture import capture
from taxlens.activations.store import lock, shard
from taxlens.activations.store import virtual_dataset as view
from taxlens.activations.store.manifest import read_manifest
from taxlens.activations.store.store import Store, verify
from taxlens.core.errors import StoreError, UsageError

SMALL = 6000


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A child of a fork runs torch in one thread; what is compared with it must add in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(one_thread, make_pair, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    capture(make_pair(), suite, to=folder / "acts.h5", shard_bytes=SMALL).close()
    return folder


def killed_at(moment: tuple[str, int], work) -> int:
    """Run `work` in a child that kills itself (SIGKILL) at the n-th call of a function; return how it ended."""
    name, wanted = moment
    owner, attribute = {
        "write": (shard.ShardFile, "write"),
        "close": (shard.ShardFile, "close"),
        "fsync": (os, "fsync"),
        "rename": (os, "replace"),
        "renamed": (os, "replace"),
        "view": (view, "_virtual"),
    }[name]
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    torch.set_num_threads(1)
    true, calls = getattr(owner, attribute), []

    def counted(*args, **options):
        calls.append(1)
        if len(calls) == wanted and name != "renamed":
            os.kill(os.getpid(), signal.SIGKILL)
        out = true(*args, **options)
        if len(calls) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        return out

    setattr(owner, attribute, counted)
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "moment",
    [("rename", 1), ("write", 1), ("write", 4), ("close", 2), ("fsync", 4), ("renamed", 2), ("rename", 5), ("view", 2)],
    ids=lambda moment: "-".join(map(str, moment)),
)
def test_capture_killed_at_any_moment_resumes_to_the_same_bytes(make_pair, suite, tmp_path, whole, moment):
    pair, to = make_pair(), tmp_path / "acts.h5"

    def work() -> None:
        capture(pair, suite, to=to, shard_bytes=SMALL)

    assert killed_at(moment, work) == signal.SIGKILL
    with pytest.raises(StoreError):
        Store.open(to)
    capture(pair, suite, to=to, shard_bytes=SMALL, resume=True).close()
    assert contents(tmp_path) == contents(whole)


def test_resume_captures_nothing_twice_but_the_open_shard(make_pair, suite, tmp_path, whole, monkeypatch):
    to = tmp_path / "acts.h5"
    capture(make_pair(), suite, to=to, shard_bytes=SMALL).close()
    (tmp_path / "acts.shards" / "shard-00002.h5").unlink()
    ran = []
    true = capturing.fill
    monkeypatch.setattr(capturing, "fill", lambda *a, **k: (ran.append((k["model"], k["span"])), true(*a, **k)))
    capture(make_pair(), suite, to=to, shard_bytes=SMALL, resume=True).close()
    assert [model for model, _ in ran] == ["base", "aligned"]
    assert len({span for _, span in ran}) == 1
    assert contents(tmp_path) == contents(whole)


def test_resume_of_a_finished_store_returns_it_without_running(make_pair, suite, tmp_path, monkeypatch):
    to = tmp_path / "acts.h5"
    capture(make_pair(), suite, to=to).close()
    monkeypatch.setattr(capturing, "fill", None)
    with capture(make_pair(), suite, to=to, resume=True) as store:
        assert store.n_rows == 36


def test_damaged_shard_is_captured_again_on_resume(make_pair, suite, tmp_path, whole):
    to = tmp_path / "acts.h5"
    capture(make_pair(), suite, to=to, shard_bytes=SMALL).close()
    path = tmp_path / "acts.shards" / "shard-00001.h5"
    path.write_bytes(path.read_bytes()[:-10])
    capture(make_pair(), suite, to=to, shard_bytes=SMALL, resume=True).close()
    assert contents(tmp_path) == contents(whole)


def test_existing_store_is_not_overwritten(make_pair, suite, tmp_path):
    capture(make_pair(), suite, to=tmp_path / "acts.h5").close()
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="a store is here already"):
        capture(make_pair(), suite, to=tmp_path / "acts.h5")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "what"),
    [({"layers": [0]}, "layers"), ({"seed": 1}, "seed"), ({"dtype": "bfloat16"}, "dtype"), ({"batch_tokens": 7}, "7")],
)
def test_resume_with_another_request_is_refused_and_says_what_differs(make_pair, suite, tmp_path, options, what):
    capture(make_pair(), suite, to=tmp_path / "acts.h5").close()
    with pytest.raises(StoreError, match=f"(?s)another request or other weights.*{what}"):
        capture(make_pair(), suite, to=tmp_path / "acts.h5", resume=True, **options)


def test_resume_with_other_weights_is_refused_and_says_so(make_checkpoint, make_pair, suite, tmp_path):
    from taxlens.activations.models.pair import load_pair

    capture(make_pair(), suite, to=tmp_path / "acts.h5").close()
    other = load_pair(make_checkpoint(), make_checkpoint(drift=0.1), device="cpu")
    with pytest.raises(StoreError, match=r"pair\.aligned\.weights"):
        capture(other, suite, to=tmp_path / "acts.h5", resume=True)


def test_second_process_in_one_folder_is_refused_and_the_first_one_named(tmp_path):
    with (
        lock.sole_writer(tmp_path),
        pytest.raises(StoreError, match=f"another process(.|\n)*process {os.getpid()}"),
        lock.sole_writer(tmp_path),
    ):
        pass
    with lock.sole_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_capture_into_a_locked_folder_is_refused(make_pair, suite, tmp_path):
    folder = tmp_path / "acts.shards"
    folder.mkdir()
    with lock.sole_writer(folder), pytest.raises(StoreError, match="another process is writing this store"):
        capture(make_pair(), suite, to=tmp_path / "acts.h5")


def test_parts_captured_apart_merge_to_the_whole(make_pair, suite, texts, tmp_path):
    from taxlens.activations.capture.merge import merge

    both = [suite, texts]
    for number, items in enumerate([(0, 5), (5, 14), (14, 18)]):
        to = tmp_path / f"part{number}.h5"
        capture(make_pair(), both, to=to, items=items, templates=("plain", "chat"), shard_bytes=SMALL).close()
    with (
        merge([tmp_path / f"part{n}.h5" for n in (2, 0, 1)], to=tmp_path / "merged.h5") as merged,
        capture(make_pair(), both, to=tmp_path / "one.h5", templates=("plain", "chat")) as one,
    ):
        assert merged.rows.equals(one.rows)
        for model in ("base", "aligned"):
            np.testing.assert_allclose(
                merged.read("resid_post", 1, model=model), one.read("resid_post", 1, model=model), rtol=1e-4, atol=1e-4
            )
    verify(tmp_path / "merged.h5")
    assert read_manifest(tmp_path / "merged.shards")["identity"]["items"] is None


def test_parts_that_do_not_join_are_refused(make_pair, suite, tmp_path):
    from taxlens.activations.capture.merge import merge

    for name, options in {"a": {"items": (0, 4)}, "b": {"items": (6, 12)}, "c": {"items": (4, 12), "seed": 5}}.items():
        capture(make_pair(), suite, to=tmp_path / f"{name}.h5", **options).close()
    with pytest.raises(StoreError, match=r"(?s)do not join.*4.*6"):
        merge([tmp_path / "a.h5", tmp_path / "b.h5"], to=tmp_path / "m.h5")
    with pytest.raises(StoreError, match=r"(?s)different requests.*seed"):
        merge([tmp_path / "a.h5", tmp_path / "c.h5"], to=tmp_path / "m.h5")
    with pytest.raises(UsageError, match="no parts to merge"):
        merge([], to=tmp_path / "m.h5")
    capture(make_pair(), suite, to=tmp_path / "w.h5").close()
    with pytest.raises(StoreError, match="not a part"):
        merge([tmp_path / "w.h5"], to=tmp_path / "m.h5")

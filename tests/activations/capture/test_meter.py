"""What a capture tells of its progress: items, not rows; nothing counted twice."""

from contextlib import contextmanager

import torch

from taxlens.activations.capture import capture as capturing
from taxlens.activations.capture.capture import capture
from taxlens.core.progress import Progress, Task


class Seen(Progress):
    def __init__(self):
        self.done, self.notes, self.total, self.unit = 0, [], None, None

    @contextmanager
    def task(self, name, *, total=None, unit="items"):
        self.total, self.unit, seen = total, unit, self

        class Step(Task):
            def advance(self, amount=1, *, note=""):
                seen.done += amount
                seen.notes.append(note)

        yield Step()


def test_progress_counts_items_and_tells_rate_bytes_and_time_left(make_pair, suite, tmp_path):
    seen = Seen()
    capture(make_pair(), suite, to=tmp_path / "acts.h5", shard_bytes=6000, batch_tokens=32, progress=seen).close()
    assert (seen.unit, seen.total, seen.done) == ("items", 12, 12)
    assert len(seen.notes) > 12
    assert all(word in seen.notes[-1] for word in ("items/s", "GB written", "0.0 min left"))


def test_progress_moves_within_one_shard(make_pair, suite, tmp_path):
    seen = Seen()
    capture(make_pair(), suite, to=tmp_path / "acts.h5", batch_tokens=32, progress=seen).close()
    assert len(seen.notes) > 12


def test_what_memory_made_read_again_is_counted_once(make_pair, suite, tmp_path, monkeypatch):
    true, calls = capturing.fill, []

    def short(*args, **options):
        true(*args, **options)
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate")

    monkeypatch.setattr(capturing, "fill", short)
    seen = Seen()
    capture(make_pair(), suite, to=tmp_path / "acts.h5", progress=seen).close()
    assert seen.done == 12


def test_resumed_capture_counts_what_was_there(make_pair, suite, tmp_path):
    to = tmp_path / "acts.h5"
    capture(make_pair(), suite, to=to, shard_bytes=6000).close()
    (tmp_path / "acts.shards" / "shard-00001.h5").unlink()
    seen = Seen()
    capture(make_pair(), suite, to=to, shard_bytes=6000, resume=True, progress=seen).close()
    assert seen.done == seen.total == 12
    assert seen.notes[0] == "resumed"

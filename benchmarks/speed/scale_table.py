"""What each stage needs for 8B parameters, on paper: memory and minutes from counts, and the assumptions they rest on.

python -m benchmarks.speed.scale_table
"""

from __future__ import annotations

from dataclasses import dataclass

LAYERS, WIDTH, INNER, VOCABULARY, KV = 32, 4096, 14336, 128256, 1024
BLOCK = 2 * WIDTH * WIDTH + 2 * WIDTH * KV + 3 * WIDTH * INNER
WEIGHTS = LAYERS * BLOCK + 2 * VOCABULARY * WIDTH
ITEMS, CHOICES, PROMPT, CHOICE = 2000, 4, 60, 3
SHARED = ITEMS * (PROMPT + CHOICES * CHOICE)
APART = ITEMS * CHOICES * (PROMPT + CHOICE)
HOST, STEPS = 1e11, 480
"""Bytes a second of the host's memory; steps of relearning on two halves and their controls, at most."""
HALF, SINGLE, MEMORY, DISK, PINNED = 4e14, 5e13, 3.5e12, 2e9, 4.5e10
"""Rates taken to be reached: operations a second in bfloat16 and in float32, bytes a second of memory, disk, copies."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stage's need.

    Args:
        stage: its name.
        gigabytes: device memory at the peak, weights in bfloat16.
        minutes: with all of the device.
        counted: what was counted.
    """

    stage: str
    gigabytes: float
    minutes: float
    counted: str


def rows() -> list[Row]:
    """The table, full fine-tune, five suites of 400 items, four choices of three tokens, prompts of sixty."""
    w = 2 * WEIGHTS / 1e9
    blocks = 2 * LAYERS * BLOCK / 1e9
    forward = 2.0 * WEIGHTS * SHARED / HALF / 60
    row_batch, nodes = 1024, 15
    kept = row_batch * LAYERS * (10 * WIDTH + 4 * INNER + 2 * 32 * PROMPT) * 2 / 1e9
    gradient = (6.0 * WEIGHTS + 2.0 * LAYERS * BLOCK) * APART / HALF
    delta = APART / row_batch * CHOICES * 3 * 2 * LAYERS * BLOCK / CHOICES / MEMORY
    sketch = 6 * 2.0 * LAYERS * BLOCK * 256 / SINGLE
    rank = 256 * LAYERS * (2 * (WIDTH + WIDTH) + 2 * (WIDTH + KV) + 3 * (WIDTH + INNER)) * 4 / 1e9
    stream = 2 * ITEMS * PROMPT * WIDTH * LAYERS * 2
    plans = 80 * (forward / 2 + 0.05 * 3 * blocks * 1e9 / MEMORY / 60)
    training = 2 * w + blocks + 2 * blocks  # gradients, and their sums in float32
    host = LAYERS * BLOCK * (2 + 4 + 8) / 1e9  # as they were, float32, two moments
    update = LAYERS * BLOCK * ((4 + 2) / PINNED + 28 / HOST) / 60
    return [
        Row("load, hash", 2 * w, 2 * w * 1e9 / DISK / 60, "two models from disk, hashed on the way"),
        Row("tax, two templates", 2 * w + 0.6, 4 * forward / 2 * 2, "two models, prompts shared"),
        Row("capture, last", 2 * w + 1, 2 * forward, "two models"),
        Row("capture, every position", 2 * w + 3, max(2 * forward, stream / DISK / 60), "bfloat16, disk decides"),
        Row(
            "attribute, component",
            3 * w + kept,
            nodes * (gradient + delta) / 60,
            "15 nodes, every choice reads its prompt",
        ),
        Row("triples", 2 * w + 1, sketch / 60, "rank 256 of every matrix, float32, once"),
        Row("attribute, singular", 3 * w + kept + rank, nodes * (gradient + delta) * 1.1 / 60, "triples beside it"),
        Row("diagnose", 2 * w + 4, 3.0, "forwards small; decompositions of 4,096 on the host's cores decide"),
        Row(
            "relearn, one taxed suite",
            training,
            STEPS * update,
            f"at most {STEPS} steps; {host:.0f} GB of the host's memory",
        ),
        Row("frontier, 80 plans", 2 * w + rank, plans, "each scores the held-out half; 5 % of the triples"),
    ]


def main() -> None:
    """Print the table as Markdown."""
    print(f"{WEIGHTS / 1e9:.2f}B weights; {SHARED:,} tokens with shared prompts, {APART:,} without.\n")
    print("| stage | GB | fits 80 GB | minutes | counted |\n|---|---|---|---|---|")
    for row in rows():
        fits = "yes" if row.gigabytes <= 80 else "**no**"
        print(f"| {row.stage} | {row.gigabytes:.0f} | {fits} | {row.minutes:.1f} | {row.counted} |")
    once = [
        row for row in rows() if row.stage not in ("attribute, component", "capture, last", "relearn, one taxed suite")
    ]  # in the row below each
    print(
        f"\nTogether {sum(row.minutes for row in once):.0f} minutes, attribution with triples and capture of every position, without relearning."
    )


if __name__ == "__main__":
    main()

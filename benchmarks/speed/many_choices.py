"""Processor time of attribution with ten times the choices: two and twenty of three tokens, prompts of some words.

OMP_NUM_THREADS=1 python -m benchmarks.speed.many_choices --items 8 --words 12
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch

from benchmarks.device import random_pair, suite
from benchmarks.speed import long_prompts
from taxlens.activations.items.items import Suite
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.scoring.choices import score_suite

GRADIENTS = 3
"""Models along the path."""


def with_choices(asked: Suite, count: int) -> Suite:
    """The same items with so many choices of three tokens, all different in their first."""
    choices = tuple(f" w{3 * n} w{3 * n + 1} w{3 * n + 2}" for n in range(count))
    return Suite(asked.name, tuple(dataclasses.replace(item, choices=choices) for item in asked.items))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--words", type=int, default=12)
    given = parser.parse_args()
    assert "small" in long_prompts.SIZES
    pair = random_pair("small", "full", torch.device("cpu"), torch.float32)
    asked, found = suite(given.items, given.words), {}
    options = {"levels": ("component",), "max_gradients": GRADIENTS, "perplexity": False, "bootstrap": 50}
    attribute(pair, with_choices(asked, 2), **options)  # what is kept for the pair is made
    for count in (2, 20):
        some, seconds = with_choices(asked, count), []
        for work in (lambda: score_suite(pair.base, some), lambda: attribute(pair, some, **options)):  # noqa: B023
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        rows = one_prompting(pair, some, "plain").rows(some)
        found[count] = seconds
        print(
            f"{count} choices: scoring {seconds[0]:.2f} s, attribution {seconds[1]:.2f} s; "
            f"{sum(len(row.ids) - 1 for row in rows)} tokens read, {sum(len(row.ids) - row.start for row in rows)} predicted"
        )
    ratios = [many / few for few, many in zip(found[2], found[20], strict=True)]
    print(f"ten times the choices: scoring {ratios[0]:.1f} x, attribution {ratios[1]:.1f} x")


if __name__ == "__main__":
    main()

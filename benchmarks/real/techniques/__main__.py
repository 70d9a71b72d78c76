"""Command line: train one technique by name, into `configs/techniques` or, for what is not shipped, into the cache.

The refusal adapters are made by `python -m benchmarks.real.refusal_lora`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.real.techniques.adversarial import adversarial
from benchmarks.real.techniques.constitutional import constitutional
from benchmarks.real.techniques.names import folder
from benchmarks.real.techniques.preference import dpo, policy
from benchmarks.real.techniques.refusal import refusal_full
from benchmarks.real.techniques.tuning import Setting


@dataclass(frozen=True, slots=True)
class Technique:
    """How a technique is trained: its function, its setting and a second one (`strong`), and the technique it starts from."""

    train: Callable[..., None]
    setting: Setting
    strong: Setting
    start: str = ""


SETTINGS = {
    "refusal-full": Technique(refusal_full, Setting(30, 2e-5), Setting(60, 5e-5)),
    "preference": Technique(dpo, Setting(36, 1e-3), Setting(40, 1e-3, more={"ranked_only": 1.0})),
    "policy": Technique(policy, Setting(30, 5e-4), Setting(60, 1e-3, strength=4.0)),
    "constitutional": Technique(
        constitutional, Setting(36, 1.5e-3, strength=0.4), Setting(36, 1.5e-3, strength=0.4, more={"harmful_only": 1.0})
    ),
    "adversarial": Technique(
        adversarial,
        Setting(24, 7e-4, more={"own_rows": 2.0}),
        Setting(16, 5e-4, strength=0.5, retention=2.0),
        start="refusal",
    ),
    "chain": Technique(dpo, Setting(24, 7e-4), Setting(80, 1.5e-3, strength=2.0, retention=0.5), start="refusal"),
}
"""What is trained, and how; docs/techniques.md says which settings were measured."""


def main() -> None:
    """Train the technique that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--strong", action="store_true", help="the second setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer or more steps than the setting's")
    given = parser.parse_args()
    one = SETTINGS[given.name]
    setting = replace(one.strong if given.strong else one.setting, seed=given.seed)
    if given.steps:
        setting = replace(setting, steps=given.steps)
    start = folder(one.start) if one.start else None
    out = folder(given.name, strong=given.strong, seed=given.seed)
    one.train(setting, out, start=start)
    print(out)


if __name__ == "__main__":
    main()

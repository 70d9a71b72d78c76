"""Memory of a base with a LoRA adapter against two checkpoints: tensors counted once, and resident memory.

python benchmarks/speed/pair_memory.py --base .cache/smollm2/base --adapter configs/smollm2/selective-0
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from taxlens.activations.models.adapter import apply_adapter
from taxlens.activations.models.loading import LoadedModel, load_model


def tensor_bytes(*models: LoadedModel) -> int:
    """Bytes of all parameters of the models, each piece of memory counted once."""
    found = {p.data_ptr(): p.numel() * p.element_size() for loaded in models for p in loaded.model.parameters()}
    return sum(found.values())


def resident() -> int:
    """Resident bytes of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=".cache/smollm2/base")
    parser.add_argument("--adapter", default="configs/smollm2/selective-0")
    given = parser.parse_args()
    base = load_model(given.base, device="cpu")
    before = resident()
    aligned = apply_adapter(base, given.adapter)
    gc.collect()
    one, both = tensor_bytes(base), tensor_bytes(base, aligned)
    names = dict(base.model.named_parameters())
    shared = [n for n, p in aligned.model.named_parameters() if p.data_ptr() == names[n].data_ptr()]
    print(
        f"base {one / 1e6:.0f} MB; base + adapter {both / 1e6:.0f} MB ({both / one:.2f} x); two checkpoints would be 2 x"
    )
    print(
        f"{len(shared)} of {len(names)} tensors are shared; resident memory grew by {(resident() - before) / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()

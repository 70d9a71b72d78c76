"""Concepts planted in a real model and erased, weakened, turned or hidden by a hook: what do the probes say?

    python benchmarks/accuracy/probe_planted.py erased     # 30 layers, three labels
    python benchmarks/accuracy/probe_planted.py variants   # attenuated, rotated, hidden in an exclusive or
    python benchmarks/accuracy/probe_planted.py variants --only 'exclusive or' --places 8   # the last with more rows
    python benchmarks/accuracy/probe_planted.py itself     # other batches, bfloat16

Phrases like "The wolves that I see near the river", read at the last token of every block. A hook after block 10 adds
a label of the noun along a random direction, 1 % of the variance there (both models). "Aligned" is the same model with
one more hook after block 15 that halves what the label has become by then, takes it out altogether, or replaces it
by the label along another direction or by two random bits whose exclusive or is the label. Number and tense, which
the model reads itself, must stay unflagged. docs/probes.md quotes the lines printed here.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taxlens.probes.pair.probe_pair import adjust_family, probe_pair
from taxlens.probes.pair.swap import row_cosine
from taxlens.probes.rows.labels import ProbeWarning

PLANT, LAYER, SHARE, FRACTION = 10, 15, 0.01, 0.5
NOUNS = (
    "wolf wolves,child children,mouse mice,goose geese,man men,woman women,foot feet,tooth teeth,leaf leaves,"
    "knife knives,wife wives,thief thieves,boy boys,girl girls,dog dogs,cat cats,bird birds,horse horses,car cars,"
    "truck trucks,boat boats,ship ships,table tables,chair chairs,book books,letter letters,teacher teachers,"
    "doctor doctors,farmer farmers,worker workers,soldier soldiers,king kings,queen queens,student students,"
    "player players,singer singers,writer writers,painter painters,driver drivers,pilot pilots,sailor sailors,"
    "hunter hunters,baker bakers,lawyer lawyers,judge judges,guard guards,nurse nurses,actor actors,dancer dancers,"
    "tree trees,flower flowers,house houses,tower towers,bridge bridges,road roads,river rivers,hill hills,"
    "stone stones,lamp lamps,clock clocks,phone phones,plane planes,train trains,bear bears,lion lions,tiger tigers,"
    "rabbit rabbits,snake snakes,spider spiders,frog frogs,duck ducks,cow cows,pig pigs,goat goats,shirt shirts,"
    "coat coats,hat hats,shoe shoes,glove gloves,ring rings"
)
FRAMES = (("The {} that I see near the", 0), ("The {} that I saw near the", 1))
PLACES = (
    "river lake road house bridge tower market garden school church station harbour field forest castle window door "
    "stairs kitchen fence"
).split()


class Phrases:
    """The phrases, their labels, and a reader of every block's output at the last token."""

    def __init__(self, folder, places):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "right"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        rows = [
            (f"{frame.format(noun)} {place}", plural, past, index)
            for index, pair in enumerate(NOUNS.split(","))
            for plural, noun in enumerate(pair.split())
            for frame, past in FRAMES
            for place in places
        ]
        texts, plural, past, noun = zip(*rows, strict=True)
        self.texts, self.noun = list(texts), np.array(noun)
        rng = np.random.default_rng(0)
        secret = rng.permutation(self.noun.max() + 1) % 2
        self.labels = {"planted": secret[self.noun], "number": np.array(plural), "tense": np.array(past)}
        self.coin = rng.integers(0, 2, len(texts))

    def read(self, edits=None, *, batch=None, order=None):
        """Return [layers, n, d] float32; edits: layer to function of (rows, states [k, d]) that gives new states."""
        order = np.arange(len(self.texts)) if order is None else order
        blocks, batch = self.model.model.layers, batch or len(order)
        out = np.zeros((len(blocks), len(self.texts), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids = self.tokenizer([self.texts[i] for i in rows], return_tensors="pt", padding=True)
            last = ids["attention_mask"].sum(1) - 1
            handles = [
                block.register_forward_hook(_hook(out[layer], rows, last, (edits or {}).get(layer)))
                for layer, block in enumerate(blocks)
            ]
            with torch.no_grad():
                self.model.model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
            for handle in handles:
                handle.remove()
        return out

    def probe(self, X, Y, *, permutations, layers=None, names=None, **options):
        """Return the results by label, p adjusted over layers and labels."""
        chosen = range(len(X)) if layers is None else layers
        data = {layer: (X[layer], Y[layer]) for layer in chosen}
        options = {"permutations": permutations, "bootstrap": 200, "shuffles": 0, **options}
        names = names or list(self.labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ProbeWarning)
            found = [probe_pair(data, self.labels[n], self.noun, **options) for n in names]
        return dict(zip(names, adjust_family(found), strict=True))


def _hook(out, rows, last, edit):
    def hook(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        place = torch.arange(len(rows)), last
        if edit is not None:
            hidden = hidden.clone()
            hidden[place] = torch.tensor(edit(rows, hidden[place].double().numpy()), dtype=hidden.dtype)
        out[rows] = hidden[place].float().numpy()
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


def planted(phrases, base):
    """Return (edit that plants the concept, its unit direction [d], its size)."""
    rng = np.random.default_rng(1)
    v = rng.normal(size=base.shape[-1])
    v /= np.linalg.norm(v)
    size = np.sqrt(SHARE / (1 - SHARE) * base[PLANT].astype(np.float64).var(0).sum())
    sign = np.where(phrases.labels["planted"], 1.0, -1.0)
    return (lambda rows, states: states + size * np.outer(sign[rows], v)), v, size


def tell(name, found, layers):
    """Print what a label's probes read before, at and after the hook, and which layers are flagged."""
    cells = [("base", "base"), ("aligned", "aligned"), ("base", "aligned")]
    print(f"  {name}: flagged {list(found.flagged())}; tests {sorted({d.test for d in found.drops})}")
    for layer in layers:
        values = [found.readings[(*cell, "none")][layer].value for cell in cells]
        drop = next(d for d in found.drops if d.layer == layer)
        print(
            f"    layer {layer:2d}: AUC base {values[0]:.2f}, aligned {values[1]:.2f}, base's probe on aligned "
            f"{values[2]:.2f}; cosine {drop.cosine:.2f} (ceiling {drop.ceiling:.2f}); adjusted p {drop.p_adjusted:.3f}"
        )


def run_erased(phrases, permutations, every=1):
    """Erase the planted concept after block 15 and print what is flagged."""
    plain = phrases.read()
    plant, v, _ = planted(phrases, plain)
    base = phrases.read({PLANT: plant})
    aligned = phrases.read({PLANT: plant, LAYER: lambda rows, states: plain[LAYER][rows]})
    share = (np.std(base[LAYER].astype(np.float64) @ v) ** 2) / base[LAYER].astype(np.float64).var(0).sum()
    print(f"planted after block {PLANT}, erased after block {LAYER} of {len(base)}; {len(phrases.noun)} phrases of")
    print(f"{len(set(phrases.noun))} nouns; {share:.2%} of the variance at block {LAYER}")
    cosine = row_cosine(base[LAYER], aligned[LAYER])
    print(f"  mean cosine of rows at layer {LAYER}: {cosine:.3f}")
    layers = range(LAYER % every, len(base), every)
    for name, found in phrases.probe(base, aligned, permutations=permutations, layers=layers).items():
        tell(name, found, [layer for layer in layers if abs(layer - LAYER) <= every or layer == layers[-1]])


def run_variants(phrases, permutations, only=None):
    """Attenuate, rotate and hide the concept after block 15, and print what each reads as."""
    plain = phrases.read()
    plant, v, size = planted(phrases, plain)
    base = phrases.read({PLANT: plant})
    rng = np.random.default_rng(2)
    u = [other - (other @ v) * v for other in rng.normal(size=(2, len(v)))]
    u = [other / np.linalg.norm(other) for other in u]
    z = phrases.labels["planted"]
    bits = (np.where(phrases.coin, 1.0, -1.0), np.where(phrases.coin ^ z, 1.0, -1.0))
    sign = np.where(z, 1.0, -1.0)
    left = {
        f"attenuated to {FRACTION}": FRACTION * (base[LAYER] - plain[LAYER]),
        "rotated": size * np.outer(sign, u[0]),
        "exclusive or": size * (np.outer(bits[0], u[0]) + np.outer(bits[1], u[1])),
    }
    for name, encoded in left.items():
        if only not in (None, name):
            continue
        aligned = phrases.read({PLANT: plant, LAYER: lambda rows, states, e=encoded: plain[LAYER][rows] + e[rows]})
        print(name)
        for kind in ("ridge", "mlp"):
            options = {"probe": kind, "maps": ("procrustes",), "layers": [LAYER - 1, LAYER], "names": ["planted"]}
            found = phrases.probe(base, aligned, permutations=permutations, **options)["planted"]
            tell(f"planted, {kind}", found, [LAYER])
            rows = [r for r in found.rows if r.layer == LAYER and r.control == "none"]
            own = {(r.fitted_on, r.metric): r.value for r in rows if r.fitted_on == r.read_on and r.map == "none"}
            mapped = next(r.value for r in rows if r.map == "procrustes" and r.metric == "auc")
            print(
                f"    separation (snr) base {own['base', 'snr']:.1f}, aligned {own['aligned', 'snr']:.1f}; "
                f"base's probe after a Procrustes map {mapped:.2f}"
            )


def run_itself(phrases, permutations):
    """Compare the model with itself in bfloat16, other batches and another order."""
    base = phrases.read(batch=32)
    order = np.random.default_rng(0).permutation(len(phrases.texts))
    phrases.model.to(torch.bfloat16)
    other = phrases.read(batch=13, order=order)
    print("itself in bfloat16 and other batches")
    for name, found in phrases.probe(base, other, permutations=permutations, names=["number", "tense"]).items():
        worst = max(abs(d.drop.value) for d in found.drops)
        least = min(d.p_adjusted for d in found.drops)
        flagged = [d.layer for d in found.drops if d.p_adjusted <= 0.05]
        print(f"  {name}: flagged {flagged}, largest |drop| {worst:.4f}, least adjusted p {least:.2f}")


RUNS = {"erased": run_erased, "variants": run_variants, "itself": run_itself}


def main():
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(RUNS))
    parser.add_argument("--model", default=".cache/smollm2/base")
    parser.add_argument("--permutations", type=int, default=999)
    parser.add_argument("--only", help="of the variants, this one: rotated, exclusive or")
    parser.add_argument(
        "--places", type=int, default=1, help="places that each noun is seen at: 1 to 20, four rows a noun each"
    )
    parser.add_argument("--every", type=int, help="of erased, every so many layers")
    given = parser.parse_args()
    start = time.time()
    more = {name: getattr(given, name) for name in ("only", "every") if getattr(given, name)}
    RUNS[given.what](Phrases(given.model, PLACES[: given.places]), given.permutations, **more)
    print(f"  {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()

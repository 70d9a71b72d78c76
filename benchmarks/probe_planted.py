"""A concept erased by hooks in a real model: does the probe flag the layers that lost it, and only those?

    python benchmarks/probe_planted.py --model .cache/smollm2/base --layer 15

The concept is the number of a sentence's subject, read at the last token of phrases like "The wolves near
the river". "Aligned" is the same model with LEACE erasers, fitted on other nouns, hooked to the output of
every block from --layer on, each on the stream that the earlier ones left (else later blocks fetch the number
again from the noun). The tense of the phrase is the label that must stay unflagged. Then the model is
compared with itself in another batch order and in bfloat16. docs/probes.md quotes the lines printed here.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taxlens.probes.labels import ProbeWarning
from taxlens.probes.leace import Leace
from taxlens.probes.linear import adjust_family, probe_pair
from taxlens.probes.swap import row_cosine

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
PLACES = ("river", "house")


def sentences():
    """Return (texts, plural, past, noun index)."""
    rows = []
    for index, pair in enumerate(NOUNS.split(",")):
        for plural, noun in enumerate(pair.split()):
            for frame, past in FRAMES:
                for place in PLACES:
                    rows.append((f"{frame.format(noun)} {place}", plural, past, index))
    texts, plural, past, noun = zip(*rows, strict=True)
    return list(texts), np.array(plural), np.array(past), np.array(noun)


def read(model, tokenizer, texts, *, batch=32, order=None, hook_from=None, sign=None, fit=None):
    """Return [layers, n, d] float32 outputs of every block at the last token.

    With hook_from, one batch holds all texts and every block from there on is erased: the eraser is fitted on
    the last-token rows `fit` as they arrive there, and applied to every row and position.
    """
    order = np.arange(len(texts)) if order is None else order
    blocks = model.model.layers
    out = np.zeros((len(blocks), len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids = tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True)
        last = ids["attention_mask"].sum(1) - 1
        handles = []
        for layer, block in enumerate(blocks):
            erased = (sign, fit) if hook_from is not None and layer >= hook_from else None
            handles.append(block.register_forward_hook(_hook(out[layer], rows, last, erased)))
        with torch.no_grad():
            model.model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
        for handle in handles:
            handle.remove()
    return out


def _hook(out, rows, last, erased):
    def hook(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        at_last = hidden[torch.arange(len(rows)), last]
        if erased is not None:
            sign, fit = erased
            eraser = Leace.fit(at_last[fit].double().numpy(), sign[fit])
            mean, left, right = (torch.tensor(a, dtype=hidden.dtype) for a in (eraser.mean, eraser.left, eraser.right))
            hidden = hidden - ((hidden - mean) @ right.T) @ left.T
            at_last = hidden[torch.arange(len(rows)), last]
        out[rows] = at_last.float().numpy()
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


def probes(X, Y, labels, noun, permutations):
    """Return the results by label, p adjusted over layers and labels."""
    layers = {layer: (X[layer], Y[layer]) for layer in range(len(X))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)
        results = [
            probe_pair(layers, y, noun, permutations=permutations, bootstrap=500, shuffles=1) for y in labels.values()
        ]
    return dict(zip(labels, adjust_family(results), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=".cache/smollm2/base")
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--permutations", type=int, default=999)
    given = parser.parse_args()
    start = time.time()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    texts, plural, past, noun = sentences()
    base = read(model, tokenizer, texts)
    fit, rest = np.flatnonzero(noun % 2 == 0), np.flatnonzero(noun % 2 == 1)
    sign = np.where(plural, 1.0, -1.0)[:, None]
    aligned = read(model, tokenizer, texts, batch=len(texts), hook_from=given.layer, sign=sign, fit=fit)
    labels = {"number (erased)": plural[rest], "tense (kept)": past[rest]}
    found = probes(base[:, rest], aligned[:, rest], labels, noun[rest], given.permutations)
    print(f"erased from layer {given.layer} of {len(base)}; {len(rest)} phrases of {len(set(noun[rest]))} nouns")
    k = given.layer
    print(f"  mean cosine at layer {k}: {row_cosine(base[k][rest], aligned[k][rest]):.3f}")
    for name, result in found.items():
        own = result.readings["base", "base", "none"], result.readings["aligned", "aligned", "none"]
        middle = [f"{side[layer].value:.2f}" for layer in (k - 1, k, len(base) - 1) for side in own]
        print(f"  {name}: flagged {list(result.flagged())}; base/aligned AUC before, at, last: {' '.join(middle)}")
        print(f"    tests {sorted({d.test for d in result.drops})}; {result}")
    order = np.random.default_rng(0).permutation(len(texts))
    half = read(model.to(torch.bfloat16), tokenizer, texts, order=order, batch=13)
    same = probes(base[:, rest], half[:, rest], labels, noun[rest], given.permutations)
    for name, result in same.items():
        worst = max(abs(d.drop.value) for d in result.drops)
        print(
            f"  itself in bfloat16, other batches, {name}: flagged {list(result.flagged())}, largest |drop| {worst:.4f}"
        )
    print(f"  {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()

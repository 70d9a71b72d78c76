# %% [markdown]
# # Where do two models differ, layer by layer, and is it where the tax is?
#
# The embedded pair needs no download. For your own: `taxlens.load_pair("base-dir-or-hub-id", "aligned-dir-or-hub-id")`.

# %%
import tempfile
from pathlib import Path

import taxlens

folder = Path(tempfile.mkdtemp())
pair = taxlens.load_pair("demo:base", "demo:planted")
facts = taxlens.suite("demo:facts")
few = facts.subset(range(64))  # for speed; the whole suite gives narrower intervals
pair

# %% [markdown]
# ## How much was lost?
# Probability of the right answer, base minus aligned, on the same items; the interval resamples groups of items.

# %%
tax = pair.tax(few, templates=("plain",))
tax

# %%
tax.plot(name="tax_probability")

# %% [markdown]
# ## Where do the activations differ?
# Both models' residual streams, one HDF5 store. Similarity says what moved. Moving is not losing.

# %%
acts = pair.capture(few, to=folder / "acts.h5", templates=("plain",))
alike = acts.similarity(["cka", "linear_r2"])
alike.plot()

# %% [markdown]
# ## What can still be read?
# A probe for "is this choice the right one?", fitted on each model, held out by group, beside the base's probe read on the
# aligned model and a probe on shuffled labels.

# %%
curve = acts.probe("correct", permutations=19)
curve

# %%
curve.plot()

# %% [markdown]
# ## Which weights did it?
# Effects of components along the path from base to aligned. They sum to the tax.

# %%
parts = pair.attribute(few, metrics=("probability",))
parts.plot()

# %%
effects = parts.to_frame().query("level == 'component'").set_index("component")["effect"]
measured = float(tax.to_frame().set_index("metric").loc["probability", "tax"])
print(f"effects sum to {effects.sum():.6f}, the tax is {measured:.6f}")
print(effects.nlargest(3))

# %% [markdown]
# ## From which layer on is the damage done?
# The base's residual stream, injected into the aligned model before each layer.

# %%
profile = pair.restoration(few)
profile.plot(name="restoration_profile_probability")

# %% [markdown]
# The truth of this pair is known: the over-refusal of facts was planted in `1.attn` and `2.mlp`, beside a larger change elsewhere that
# costs nothing. Similarity and norms see the larger change; the attribution names the planted two.

# %%
planted = {"1.attn", "2.mlp"}
found = set(effects.nlargest(2).index)
print("planted:", sorted(planted), " found:", sorted(found))

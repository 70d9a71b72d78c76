# %% [markdown]
# # From localisation to a restored checkpoint
#
# Attribute the tax and the benefit to singular triples of the update, undo the triples that cost much and bring little,
# measure that on items that
# the choice did not see, and write the plan as a checkpoint.

# %%
import tempfile
from pathlib import Path

import taxlens

folder = Path(tempfile.mkdtemp())
pair = taxlens.load_pair("demo:base", "demo:planted")
facts = taxlens.suite("demo:facts")
harm = taxlens.suite("demo:harm", kind="benefit")
harmless = taxlens.suite("demo:harmless")

# %% [markdown]
# The benefit is selective: refusing harmful requests counts, refusing harmless ones counts against it.

# %%
front = pair.frontier(
    [facts, harm, harmless],
    benefit="harm",
    against="harmless",
    shares=(0.01, 0.025),
    orders=("path", "one_gradient", "magnitude", "random"),
    draws=3,
    items=48,
    train_items=48,
    bootstrap=300,
)
front

# %%
front.plot(name="restoration_probability")

# %%
front.plot(name="predicted_probability")

# %% [markdown]
# What was predicted for items that the attribution did not see, against what was measured:

# %%
print(front.prediction())

# %% [markdown]
# ## Write it
# A plan that loses too much of the measured benefit is refused unless the loss is accepted. Here we take the path plan
# of 1 %; read what it keeps first.

# %%
plan = "path-1%"
returned, kept = front.returned(plan), front.benefit_kept(plan)
print(
    f"{plan}: returns {returned.value:.0%} [{returned.low:.0%}, {returned.high:.0%}] of the tax, keeps {kept.value:.0%} of the benefit"
)
restored = pair.restore(front, plan=plan, out=folder / "restored", accept_benefit_loss=True)
print(sorted(path.name for path in restored.iterdir()))

# %% [markdown]
# ## Load it again
# The checkpoint is an ordinary one; its tax against the base is what the frontier measured.

# %%
again = taxlens.load_pair("demo:base", restored)
print(pair.tax(facts, templates=("plain",)))
print(again.tax(facts, templates=("plain",)))

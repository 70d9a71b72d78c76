# %% [markdown]
# # Explain a gap between two evaluation logs
#
# `logs/` holds what lm-evaluation-harness writes with `--log_samples`, for the base and the aligned model of the embedded pair
# (made by `logs/make.py`). For your own: two folders of samples_*.jsonl, or two Inspect logs.

# %%
import tempfile
from pathlib import Path

import taxlens
from taxlens.analysis.logs.import_eval import import_eval

places = (Path("logs"), Path("examples/logs"), Path(taxlens.__file__).resolve().parents[1] / "examples" / "logs")
LOGS = next(path for path in places if path.is_dir())
folder = Path(tempfile.mkdtemp())
gap = import_eval(LOGS / "base", LOGS / "aligned", out=folder / "facts.jsonl")
gap

# %%
gap.to_frame()[["suite", "metric", "base", "aligned", "tax", "low", "high", "lost", "won", "n_items", "n_groups"]]

# %% [markdown]
# The notes say what to know before the gap is read: how items were grouped, differing prompts, versions or templates.

# %%
print(*gap.notes, sep="\n")

# %% [markdown]
# ## The same items, scored again
# The imported suite holds the prompts as they were asked, so the plain template scores them as the harness did.

# %%
pair = taxlens.load_pair("demo:base", "demo:planted")
suite = taxlens.suite(folder / "facts.jsonl")
tax = pair.tax(suite, templates=("plain", "chat"))
logged = gap.to_frame().set_index("metric").loc["accuracy", "tax"]
again = tax.to_frame().query("template == 'plain'").set_index("metric").loc["accuracy", "tax"]
print(f"accuracy lost: {logged:.4f} in the logs, {again:.4f} scored here")

# %% [markdown]
# ## Is it the weights or the template?

# %%
tax.two_by_two().query("metric == 'accuracy'")

# %% [markdown]
# ## Which items, and what do the models say instead?

# %%
changed = tax.changed()
changed.head()

# %% [markdown]
# ## Where in the network?

# %%
parts = pair.attribute(suite, metrics=("accuracy",))
parts.plot()

# %%
print(parts)

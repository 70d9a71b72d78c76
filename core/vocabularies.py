"""Closed lists of names that options and tables may hold, each declared once: engines, config and docs read them here."""

from __future__ import annotations

TEMPLATES = ("plain", "chat")
"""How prompts are given to the models."""

DTYPES = ("float32", "float16", "bfloat16")
"""Types of weights in memory and of activations in a store."""

LEVELS = ("component", "head", "neuron", "singular")
"""Levels at which a difference of weights is cut into units."""

PLAN_UNITS = ("component", "head", "singular")
"""Levels whose units a plan may undo."""

PROBES = ("ridge", "logistic", "diff_of_means", "lda", "mlp", "mdl")
"""Kinds of probe; all but the last, the online code, are fitted fold by fold."""

VENUES = {
    "neurips": (5.5, 5.5),
    "iclr": (5.5, 5.5),
    "icml": (3.25, 6.75),
    "acl": (3.03, 6.30),
    "tmlr": (6.5, 6.5),
    "aaai": (3.3, 6.975),
}
"""Widths of a column and of the page, inches; venues of one column have the same twice."""

WIDTHS = ("column", "page")
"""What a figure may be as wide as."""

SUITE_KINDS = ("capability", "benefit")
"""What a suite measures."""

SPLIT_KEYS = ("group", "gold")
"""What two halves of a suite can be kept apart in."""

INTERVALS = ("percentile", "bca")
"""Kinds of bootstrap interval."""

RIVALS = ("adl", "pca", "probe", "random_rank", "eigenvectors")
"""What is given back without a dictionary, beside its latents."""

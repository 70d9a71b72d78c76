"""Names of the editors without what runs them, so that a config is checked before anything heavy is loaded."""

from __future__ import annotations

NAMES = (
    "joint", "path", "one_gradient", "mask", "per_layer", "hma", "hma_layers", "localize", "spectral_surgery",
    "protected_delta", "repair", "contrast", "relearn", "relearn_frozen", "relearn_unrelated", "replay", "relearn_kl",
    "realign_10", "ablate", "false_refusal", "false_refusal_hooks", "heretic", "heretic_reaimed", "write_projection",
    "interpolation", "extrapolation", "soup", "dg_hard", "top_k", "ties_trim", "dare", "drop", "breadcrumbs",
)  # fmt: skip
"""In the order of tables; a test compares them with the registry."""


def editor_names() -> tuple[str, ...]:
    """The names of all editors."""
    return NAMES

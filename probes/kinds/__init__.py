"""The kinds of probe, and how one is fitted and cross-validated."""

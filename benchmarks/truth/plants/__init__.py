"""Plants: aligned models whose damage is known by construction."""

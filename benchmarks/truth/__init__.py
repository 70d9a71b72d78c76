"""The proving ground: pairs of models whose truth is known, and how well each method finds it."""

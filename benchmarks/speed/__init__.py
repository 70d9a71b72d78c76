"""How fast each stage is and how much memory it takes, as ratios within one run."""

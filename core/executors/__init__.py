"""Where workers run: processes of this machine, actors of a Ray cluster, jobs of a Slurm queue."""

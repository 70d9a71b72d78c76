"""The stages of a run, a folder each: what a stage computes, writes, draws and says."""

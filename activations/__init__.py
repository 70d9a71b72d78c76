"""Models to labelled arrays on disk: loading a pair, hooks, capture and the HDF5 store."""

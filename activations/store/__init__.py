"""The HDF5 store of paired activations: shards, manifest, checksums and locks."""

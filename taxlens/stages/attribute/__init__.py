"""The attribute stage: which weights each tax comes from."""

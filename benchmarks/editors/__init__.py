"""Every way of buying a capability back, compared on the same items: `python -m benchmarks.editors`."""

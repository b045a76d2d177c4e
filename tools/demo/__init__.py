"""The benchmark of `make demo`."""

"""Benchmarks: time every variant of decoding that an engine supports, side by side in one run."""

"""Benchmarks: every variant of decoding that an engine supports, timed side by side in one run."""

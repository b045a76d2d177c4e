"""Benchmarks: every way of decoding that an engine has, timed side by side in one run."""

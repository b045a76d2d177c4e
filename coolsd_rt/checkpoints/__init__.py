"""Weights files: converts published checkpoints to the format of this package, and loads them into networks."""

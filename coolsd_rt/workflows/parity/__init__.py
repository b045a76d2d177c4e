"""Proof of an engine against the eager reference."""

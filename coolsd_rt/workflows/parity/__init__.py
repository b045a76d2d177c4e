"""Verifies an engine against the eager reference."""

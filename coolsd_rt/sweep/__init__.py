"""Sweeps: draw, measure and plot every point of a grid of run-time values."""

"""Sweeps: a grid of run-time values, each drawn, measured and plotted."""

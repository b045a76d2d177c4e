"""Experiments of the paper's questions, on recorded rounds."""

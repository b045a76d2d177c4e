"""The networks themselves, in PyTorch: the eager reference, and an engine on a CPU or a GPU."""

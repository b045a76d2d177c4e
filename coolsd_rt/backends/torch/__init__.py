"""The backend PyTorch: the networks as the eager reference, and as an engine on a CPU or a GPU."""

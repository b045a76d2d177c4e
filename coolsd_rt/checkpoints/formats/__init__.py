"""Published formats of checkpoints, one module each."""

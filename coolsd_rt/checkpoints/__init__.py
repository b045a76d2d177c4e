"""Weight files: published checkpoints converted to ours, and ours loaded into networks."""

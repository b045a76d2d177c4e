"""The published checkpoint formats, one module each."""

"""The comparison that people ask for: eager, compiled and official code beside ours, `python -m tools.performance`."""

"""From an engine and prompts to image files."""

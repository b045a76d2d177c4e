"""Draws images from prompts with a built engine, and writes them to files."""

"""A language model's engine beside other programs on the same file: what it computes, and how fast."""

"""Trains a draft for any target: `coolsd-rt train-draft`.

Takes a spec's target and images (a folder, or samples of the target) and writes a weights file that the spec can name.
The objective uses the distributions of a round: P and Q after guidance and filters. The reported figure is the accept
length. Knows drafts and training. Does not know engines.
"""

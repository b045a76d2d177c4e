"""Training a draft for any target: `coolsd-rt train-draft`.

From a spec's target and images (a folder of them, or its own samples) to a weights file that the spec can name. The
law that is trained is the law of a round: P and Q after guidance and filters, and what is reported is accept length.
"""

"""The loop where the models are: all rounds of a batch on one device, as one CUDA graph replayed.

Knows torch, the ops and the contract's steps. Does not know what a step is made of: eager networks and TensorRT
engines both enqueue theirs. The round is that of `coolsd_rt.runtime.round`; the same numbers give the same tokens.
"""

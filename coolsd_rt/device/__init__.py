"""The device loop: all rounds of a batch run on the models' device, as replays of one CUDA graph.

Knows torch, the ops and the contract's steps. Does not know how a step is implemented: eager networks and TensorRT
engines both enqueue theirs. The round is that of `coolsd_rt.runtime.round`; the same random numbers give the same
tokens.
"""

"""Narrow steps of the eager networks on a GPU, by fused Triton kernels over the same weights and caches.

A step of one to sixteen rows reads all weights for little arithmetic; the operations between the products need more
launches than the products. Knows the networks of `coolsd_rt.models`. Does not know rounds, CUDA graphs or files.
"""

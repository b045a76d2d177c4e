"""Narrow steps of the eager networks on a GPU, by fused Triton kernels over their own weights and caches.

A step of one to sixteen rows reads all weights for little arithmetic; what stands between the products costs more
launches than the products. Knows the networks of `coolsd_rt.models`. Does not know rounds, graphs of CUDA or files.
"""

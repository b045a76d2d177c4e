"""Networks for continuous tokens: an autoencoder without codes, a causal decoder, and a diffusion head.

Knows torch and networks. Does not know the law (`coolsd_rt.law.continuous`), engines, or how they are trained: no spec
or engine draws with them yet, `tools/emoji_continuous.py` does.
"""

"""Rounds of continuous tokens: a small decoder with a diffusion head drafts vectors, the target's head judges them.

The counters, the window and the steps of a round are those of `coolsd_rt.runtime.round`; what differs is that a token
is a vector in R^d, P and Q are the Gaussians of a last denoising step, and a round's Gaussians stand beside its
uniforms. Knows sessions and the law of `coolsd_rt.law.continuous`. Does not know torch, engines or specs.
"""

from coolsd_rt.runtime.continuous.interface import Noise, VectorModel, VectorSession, VectorSizes
from coolsd_rt.runtime.continuous.loop import VectorLoop, VectorRecord
from coolsd_rt.runtime.continuous.settings import VectorLaw, VectorSampling
from coolsd_rt.runtime.continuous.whole import VectorGeneration, draw_vectors

__all__ = [
    "Noise",
    "VectorGeneration",
    "VectorLaw",
    "VectorLoop",
    "VectorModel",
    "VectorRecord",
    "VectorSampling",
    "VectorSession",
    "VectorSizes",
    "draw_vectors",
]

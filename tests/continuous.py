"""Tiny networks of continuous tokens, with weights that are not those of a start: norms that are not ones, v not 0."""

from __future__ import annotations

from dataclasses import replace

import torch

from coolsd_rt.models.continuous.autoencoder import Autoencoder
from coolsd_rt.models.continuous.config import AutoencoderConfig, ContinuousConfig
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from tools.emoji.train_continuous import initialise

TARGET = ContinuousConfig(
    channels=4, dim=48, layers=3, heads=3, ffn=64, grid=4, prefix=3, words=9, word_dim=16, head=32, last=0.25, steps=5
)
AUTOENCODER = AutoencoderConfig(latent=4, noise=0.25, channels=8, multipliers=(1, 2), z_channels=8, norm_groups=4)


def decoder(channels: int = TARGET.channels) -> ContinuousDecoder:
    """A target with random weights, the same in every call."""
    torch.manual_seed(0)
    model = ContinuousDecoder(replace(TARGET, channels=channels))
    initialise(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1 and "norm" in name:
                p.uniform_(0.5, 1.5)
            elif name.startswith(("head.out", "head.by_")):
                p.normal_(std=0.1)
    return model.eval().requires_grad_(False)


def autoencoder() -> Autoencoder:
    """An autoencoder with random weights, and means and deviations that change what it says."""
    torch.manual_seed(0)
    model = Autoencoder(AUTOENCODER)
    model.mean.uniform_(-1, 1)
    model.deviation.uniform_(0.5, 1.5)
    return model.eval().requires_grad_(False)

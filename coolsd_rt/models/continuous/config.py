"""Configs of the networks for continuous tokens, as they are in the header of a weights file.

Needs no torch. Knows sizes. Does not know tensors or files. Legend as in `coolsd_rt.contract`; d is the number of
channels of a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from coolsd_rt.models.config import Fault, LayerConfig, VQConfig

MOST_TRAINED = 10_000  # denoising steps of training; published heads have 1,000
MOST_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of an autoencoder whose latents are continuous tokens.

    latent: channels d of a token.
    noise: deviation of the noise on the tokens that its decoder was trained with; a token's channel has deviation 1.
    The other fields are those of `VQConfig`, whose encoder and decoder it has.
    """

    latent: int
    noise: float
    channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4)
    z_channels: int = 64
    res_blocks: int = 1
    norm_groups: int = 8
    attention: bool = False

    @property
    def networks(self) -> VQConfig:
        """Config of the encoder and the decoder; it has no codes."""
        return VQConfig(
            codebook_size=1,
            codebook_dim=self.latent,
            channels=self.channels,
            multipliers=self.multipliers,
            z_channels=self.z_channels,
            res_blocks=self.res_blocks,
            norm_groups=self.norm_groups,
            attention=self.attention,
        )

    @property
    def downsampling(self) -> int:
        """Pixels along one side of a token's cell."""
        return self.networks.downsampling

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.latent > MOST_CHANNELS:
            yield Fault("latent", f"at most {MOST_CHANNELS}", str(self.latent))
        yield from self.networks.faults()


@dataclass(frozen=True, kw_only=True)
class ContinuousConfig:
    """Sizes of a target or a draft of continuous tokens: a causal decoder behind a prefix of words, and its head.

    channels: d of a token.
    head: width of the diffusion head. res_blocks: its blocks.
    trained: denoising steps T of training. steps: those of drawing a token, K, at most T.
    last: deviation s of the last step, which is the noise on the tokens that the network was trained to read.
    The other fields are those of `DecoderConfig` and of LlamaGen's.
    """

    channels: int
    dim: int
    layers: int
    heads: int
    ffn: int
    grid: int
    prefix: int
    words: int
    word_dim: int
    head: int
    last: float
    res_blocks: int = 3
    trained: int = 100
    steps: int = 25
    norm_eps: float = 1e-5
    rope_base: float = 1e4
    prefix_rope: Literal["zero", "identity"] = "identity"

    @property
    def layer(self) -> LayerConfig:
        """Config of each layer."""
        return LayerConfig(self.dim, self.heads, self.ffn, self.norm_eps)

    @property
    def condition_size(self) -> tuple[int, int]:
        """Words, and the width of their embeddings."""
        return self.words, self.word_dim

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return self.grid * self.grid

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.dim % (4 * self.heads):
            found = f"dim {self.dim}, {self.heads} heads"
            yield Fault("dim", "a dim of heads times a multiple of 4 (two axes of RoPE pairs)", found)
        if self.head % 2:
            yield Fault("head", "an even width", str(self.head))
        if self.trained > MOST_TRAINED:
            yield Fault("trained", f"at most {MOST_TRAINED}", str(self.trained))
        if self.steps > self.trained:
            yield Fault("steps", f"at most the {self.trained} steps of training", str(self.steps))
        if self.channels > MOST_CHANNELS:
            yield Fault("channels", f"at most {MOST_CHANNELS}", str(self.channels))

"""The image tokenizer of LlamaGen, and VQGAN: a convolutional VQ autoencoder, with or without L2-normalised codes.

Knows pixels and code ids. Does not know prompts, token order in a sequence, or checkpoints' file formats. Module names
are those of the published LlamaGen VQ checkpoints, so that a state dict loads without renaming.

Shapes: B images, C channels, F pixels per side, G = F / downsampling cells per side, K codes, E code dimension.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.config import VQConfig

__all__ = ["VQConfig", "VQTokenizer"]


def _norm(channels: int, cfg: VQConfig) -> nn.GroupNorm:
    return nn.GroupNorm(cfg.norm_groups, channels, eps=1e-6)


def _conv(c_in: int, c_out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)


class ResBlock(nn.Module):
    """Twice norm, swish and convolution, with a shortcut (a 1x1 convolution if the width changes)."""

    def __init__(self, c_in: int, c_out: int, cfg: VQConfig) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(c_in, cfg), _conv(c_in, c_out)
        self.norm2, self.conv2 = _norm(c_out, cfg), _conv(c_out, c_out)
        self.nin_shortcut = _conv(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x [B, C, H, W]."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return torch.add(self.nin_shortcut(x), h)


class AttnBlock(nn.Module):
    """Single-head self-attention over the cells of one image."""

    def __init__(self, channels: int, cfg: VQConfig) -> None:
        super().__init__()
        self.norm = _norm(channels, cfg)
        self.q, self.k, self.v = (_conv(channels, channels, 1) for _ in range(3))
        self.proj_out = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention with a residual connection to x [B, C, H, W]."""
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (m(y).reshape(b, 1, c, h * w).transpose(2, 3) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return torch.add(x, self.proj_out(y.transpose(2, 3).reshape(b, c, h, w)))


class Downsample(nn.Module):
    """A convolution of stride 2 that halves the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, C, H, W] to [B, C, H / 2, W / 2]."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Upsample(nn.Module):
    """Nearest-neighbour interpolation that doubles the resolution, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, C, H, W] to [B, C, 2H, 2W]."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


def _middle(channels: int, cfg: VQConfig) -> nn.ModuleList:
    attention = AttnBlock(channels, cfg) if cfg.attention else nn.Identity()
    return nn.ModuleList([ResBlock(channels, channels, cfg), attention, ResBlock(channels, channels, cfg)])


class _Level(nn.Module):
    """One resolution: residual blocks, with attention after each at the lowest level, then a change of size."""

    def __init__(self, widths: list[int], lowest: bool, cfg: VQConfig) -> None:
        super().__init__()
        attention = lowest and cfg.attention and cfg.low_attention
        pairs = list(pairwise(widths))
        self.res = nn.ModuleList([ResBlock(a, b, cfg) for a, b in pairs])
        self.attn = nn.ModuleList([AttnBlock(b, cfg) for _, b in pairs] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        for i, res in enumerate(self.res):
            x = res(x)
            if len(self.attn):
                x = self.attn[i](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class VqEncoder(nn.Module):
    """Pixels [B, 3, F, F] in [-1, 1] -> latents [B, z_channels, G, G]."""

    def __init__(self, cfg: VQConfig) -> None:
        super().__init__()
        mult, ch = cfg.multipliers, cfg.channels
        self.conv_in = _conv(3, ch)
        self.conv_blocks = nn.ModuleList()
        width = ch
        for i, m in enumerate(mult):
            level = _Level([width] + [ch * m] * cfg.res_blocks, i == len(mult) - 1, cfg)
            width = ch * m
            if i < len(mult) - 1:
                level.downsample = Downsample(width)
            self.conv_blocks.append(level)
        self.mid = _middle(width, cfg)
        self.norm_out, self.conv_out = _norm(width, cfg), _conv(width, cfg.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Encode pixels x [B, 3, F, F] to latents [B, z_channels, G, G]."""
        x = self.conv_in(x)
        for block in (*self.conv_blocks, *self.mid):
            x = block(x)
        y: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return y


class VqDecoder(nn.Module):
    """Latents [B, z_channels, G, G] -> pixels [B, 3, F, F], nominally in [-1, 1]."""

    def __init__(self, cfg: VQConfig) -> None:
        super().__init__()
        mult, ch = cfg.multipliers, cfg.channels
        width = ch * mult[-1]
        self.conv_in = _conv(cfg.z_channels, width)
        self.mid = _middle(width, cfg)
        self.conv_blocks = nn.ModuleList()
        for i, m in enumerate(reversed(mult)):
            level = _Level([width] + [ch * m] * (cfg.res_blocks + 1), i == 0, cfg)
            width = ch * m
            if i < len(mult) - 1:
                level.upsample = Upsample(width)
            self.conv_blocks.append(level)
        self.norm_out, self.conv_out = _norm(width, cfg), _conv(width, 3)

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents z [B, z_channels, G, G] to pixels [B, 3, F, F]."""
        x = self.conv_in(z)
        for block in (*self.mid, *self.conv_blocks):
            x = block(x)
        y: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return y


class Codebook(nn.Module):
    """The codes and their nearest-neighbour lookup, by cosine if `unit_codes`, else by Euclidean distance."""

    def __init__(self, cfg: VQConfig) -> None:
        super().__init__()
        self.unit = cfg.unit_codes
        self.embedding = nn.Embedding(cfg.codebook_size, cfg.codebook_dim)

    @property
    def codes(self) -> Tensor:
        """The codes, float [K, E], as the decoder takes them."""
        return self.scaled(self.embedding.weight)

    def scaled(self, x: Tensor) -> Tensor:
        """Return latents or codes [..., E], normalised to unit length if `unit_codes`."""
        return F.normalize(x, dim=-1) if self.unit else x

    def nearest(self, z: Tensor) -> Tensor:
        """Return the nearest code of each latent [..., E], int64 [...].

        On the unit sphere the nearest code has the largest cosine.
        """
        codes = self.codes
        scores = self.scaled(z) @ codes.T
        return (scores if self.unit else scores - codes.square().sum(-1) / 2).argmax(-1)

    def lookup(self, ids: Tensor) -> Tensor:
        """Return the codes [..., E] of ids int64 [...]."""
        return self.scaled(self.embedding(ids))


class VQTokenizer(nn.Module):
    """Encode images to code ids and decode them."""

    def __init__(self, cfg: VQConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder, self.decoder = VqEncoder(cfg), VqDecoder(cfg)
        self.quantize = Codebook(cfg)
        self.quant_conv = _conv(cfg.z_channels, cfg.codebook_dim, 1)
        self.post_quant_conv = _conv(cfg.codebook_dim, cfg.z_channels, 1)

    def latents(self, pixels: Tensor) -> Tensor:
        """Return latents [B, G, G, E] of pixels before quantisation, of unit length if codes are."""
        z = self.quant_conv(self.encoder(pixels)).permute(0, 2, 3, 1)
        return self.quantize.scaled(z.float())

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels float [B, 3, F, F] in [-1, 1] to code ids int64 [B, G*G] in raster order."""
        return self.quantize.nearest(self.latents(pixels)).flatten(1)

    def decode_latents(self, codes: Tensor) -> Tensor:
        """Decode codes [B, G, G, E] to pixels, not clamped (training needs the gradient outside [-1, 1])."""
        y: Tensor = self.decoder(self.post_quant_conv(codes.permute(0, 3, 1, 2)))
        return y

    def decode(self, ids: Tensor) -> Tensor:
        """Decode code ids int64 [B, G*G] to pixels float [B, 3, F, F] in [-1, 1]."""
        side = int(ids.shape[1] ** 0.5)
        codes = self.quantize.lookup(ids).reshape(ids.shape[0], side, side, self.cfg.codebook_dim)
        return self.decode_latents(codes).float().clamp(-1, 1)

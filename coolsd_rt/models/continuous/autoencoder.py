"""An autoencoder of images whose latents are continuous tokens: the VQ networks' encoder and decoder without codes.

Each channel of a token has mean 0 and deviation 1 over the training's images, by the two buffers `mean` and
`deviation`; the decoder was trained on tokens with noise of the deviation `AutoencoderConfig.noise`, so that a token is
a Gaussian around what the encoder says. Knows pixels and vectors. Does not know prompts, order in a sequence, or files.

Shapes: B images, F pixels per side, G = F / downsampling cells per side, d channels of a token.
"""

from __future__ import annotations

from torch import Tensor, nn

from coolsd_rt.models.continuous.config import AutoencoderConfig
from coolsd_rt.models.vq import VqDecoder, VqEncoder


class Autoencoder(nn.Module):
    """Encode images to tokens and decode them."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder, self.decoder = VqEncoder(cfg.networks), VqDecoder(cfg.networks)
        self.quant_conv = nn.Conv2d(cfg.z_channels, cfg.latent, 1)
        self.post_quant_conv = nn.Conv2d(cfg.latent, cfg.z_channels, 1)
        self.register_buffer("mean", self.quant_conv.weight.new_zeros(cfg.latent))
        self.register_buffer("deviation", self.quant_conv.weight.new_ones(cfg.latent))

    def raw(self, pixels: Tensor) -> Tensor:
        """Return latents float32 [B, G, G, d] of pixels [B, 3, F, F], not normalised."""
        z: Tensor = self.quant_conv(self.encoder(pixels)).permute(0, 2, 3, 1).float()
        return z

    def latents(self, pixels: Tensor) -> Tensor:
        """Return tokens without noise, float32 [B, G, G, d], of pixels float [B, 3, F, F] in [-1, 1]."""
        return (self.raw(pixels) - self.mean) / self.deviation

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the tokens of `latents` in raster order, float32 [B, G*G, d]."""
        return self.latents(pixels).flatten(1, 2)

    def decode_latents(self, tokens: Tensor) -> Tensor:
        """Decode tokens [B, G, G, d] to pixels, not clamped (training needs the gradient outside [-1, 1])."""
        y: Tensor = self.decoder(self.post_quant_conv(tokens.permute(0, 3, 1, 2)))
        return y

    def decode(self, tokens: Tensor) -> Tensor:
        """Decode tokens float [B, G*G, d] in raster order to pixels float32 [B, 3, F, F] in [-1, 1]."""
        side = int(tokens.shape[1] ** 0.5)
        return self.decode_latents(tokens.unflatten(1, (side, side))).float().clamp(-1, 1)

"""Stage `autoencoder`: tokens of 8 channels without codes, trained on all glyphs, jittered.

It starts from the released tokenizer's networks, without their codes. In the place of quantisation each channel is
normalised over the batch and gets noise of a fixed deviation: that bounds what a token says, as a small KL term would,
and is the noise with which tokens are drawn later. Loss: mean squared error.

Cells with nothing but white around them are all decoded from one token, as in stage `vq`: left alone, an encoder uses
them to carry facts about the rest of the image, which no sequence model can foresee.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.checkpoints.load import load_tokenizer
from coolsd_rt.models.continuous.autoencoder import Autoencoder
from coolsd_rt.models.continuous.config import AutoencoderConfig
from coolsd_rt.models.vq import VQConfig
from coolsd_rt.train.loop import Ema
from coolsd_rt.train.networks import write_weights

from .common import Workspace
from .data import Glyphs, jitter, may_flip, on_white
from .loop import Training, TrainSettings
from .train_vq import background

FILE = "autoencoder.safetensors"
NOISE = 0.35  # deviation of the noise on tokens whose channels have deviation 1
WHITE_WEIGHT = 0.1
MOVE = 0.02  # of the running mean and deviation, in every step
_SHARED = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def config_of(codes: VQConfig) -> AutoencoderConfig:
    """The config with the encoder and the decoder of a tokenizer."""
    return AutoencoderConfig(
        latent=codes.codebook_dim,
        noise=NOISE,
        channels=codes.channels,
        multipliers=codes.multipliers,
        z_channels=codes.z_channels,
        res_blocks=codes.res_blocks,
        norm_groups=codes.norm_groups,
        attention=codes.attention,
    )


def start(tokenizer: Path) -> Autoencoder:
    """A network with the weights of a released tokenizer, but for its codes."""
    codes = load_tokenizer(tokenizer)
    model = Autoencoder(config_of(codes.cfg))
    known = {k: v for k, v in codes.state_dict().items() if k.startswith(_SHARED)}
    model.load_state_dict({**model.state_dict(), **known})
    return model


def train(work: Workspace, glyphs: Glyphs, chosen: np.ndarray, settings: TrainSettings) -> None:
    """Train the autoencoder, or go on from its checkpoint, and write the weights of the release."""
    torch.manual_seed(settings.seed)
    rng = torch.Generator().manual_seed(settings.seed)
    model = start(work.release / "vq.safetensors")
    model.to(settings.device)  # not channels_last: the gradient of a group norm in it takes half of a step on a CPU
    work.root.mkdir(parents=True, exist_ok=True)
    opts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=1e-4)
    ]
    run = Training("autoencoder", model, opts, Ema(model, 0.995), settings, work.root)
    if state := run.resume():
        rng.set_state(state["rng"])
    rgba, picked = torch.from_numpy(glyphs.rgba), torch.from_numpy(chosen)
    flippable = torch.tensor([may_flip(c) for c in glyphs.captions])
    for _ in run.remaining():
        # Half of each batch from the glyphs that the target will draw, half from all.
        index = torch.randint(len(rgba), (settings.batch,), generator=rng)
        index[::2] = picked[torch.randint(len(picked), (len(index[::2]),), generator=rng)]
        x = jitter(rgba[index], flippable[index], rng).to(settings.device)
        mse, spread = losses(model, x, rng)
        run.update(mse + WHITE_WEIGHT * spread, [mse.item(), spread.item()], "mse and spread of white")
        if run.due:
            run.save(rng=rng.get_state())
            report = evaluate(run.ema.model, glyphs, chosen)
            run.log("autoencoder " + " ".join(f"{k} {v:.2f}" for k, v in report.items()))
    write_weights(work.release / FILE, run.ema.model, asdict(model.cfg), torch.float32)


def losses(model: Autoencoder, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Error of images x decoded from noisy tokens, and how far tokens of white cells are from their mean."""
    with torch.autocast(x.device.type, torch.bfloat16):
        raw = model.raw(x)
        deviation, mean = torch.std_mean(raw, dim=(0, 1, 2))
        with torch.no_grad():
            model.mean.lerp_(mean, MOVE)
            model.deviation.lerp_(deviation, MOVE)
        z = (raw - mean) / deviation
        white = background(x, z.shape[1]).unsqueeze(-1)
        centre = (z * white).sum((0, 1, 2)) / white.sum().clamp(min=1)
        noise = torch.randn(z.shape, generator=rng).to(z.device)
        y = model.decode_latents((torch.where(white, centre, z) + model.cfg.noise * noise).bfloat16())
    spread = ((z - centre.detach()).square() * white).sum() / (white.sum().clamp(min=1) * z.shape[-1])
    return F.mse_loss(y.float(), x), spread


@torch.no_grad()
def evaluate(model: Autoencoder, glyphs: Glyphs, chosen: np.ndarray) -> dict[str, float]:
    """PSNR in dB on the clean glyphs, mean over images: without noise, and with that of the config."""
    x = torch.from_numpy(on_white(glyphs.rgba)).permute(0, 3, 1, 2) * 2 - 1
    rng = torch.Generator().manual_seed(0)
    psnr: dict[str, list[Tensor]] = {"clean": [], "noisy": []}
    for part in x.split(64):
        z = model.encode(part.to(next(model.parameters()).device))
        for name, tokens in (("clean", z), ("noisy", z + model.cfg.noise * torch.randn(z.shape, generator=rng).to(z))):
            error = ((model.decode(tokens).cpu() - part) / 2).square().mean((1, 2, 3))
            psnr[name].append(-10 * error.log10())
    whole = {name: torch.cat(parts) for name, parts in psnr.items()}
    return {f"psnr_{name}_all": float(v.mean()) for name, v in whole.items()} | {
        f"psnr_{name}_chosen": float(v[chosen].mean()) for name, v in whole.items()
    }

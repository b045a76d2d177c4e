"""Stage `vq`: the image tokenizer, trained on all glyphs, jittered.

First as a plain autoencoder, then with a codebook started by k-means on its latents and kept as a moving average of
what each code is used for (dead codes restart on random latents). Loss: mean squared error and a commitment term.

Cells with nothing but white around them are all given code 0. Left alone, an encoder uses them to carry facts about
the rest of the image (seen: no code had more than 2% of all cells), which no sequence model can foresee.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.train.checkpoint import load_tree, save_tree
from coolsd_rt.train.loop import Ema
from coolsd_rt.train.networks import write_weights

from .common import Log, Workspace, learning_rate
from .data import Glyphs, jitter, may_flip, on_white
from .loop import TrainSettings

CONFIG = VQConfig(
    codebook_size=1024,
    codebook_dim=8,
    channels=16,
    multipliers=(1, 2, 4),
    z_channels=64,
    res_blocks=1,
    norm_groups=8,
    attention=False,
)
WARM = 150  # steps without quantisation
COMMIT = 0.1
DECAY = 0.98
BACKGROUND = 0  # the code of white cells
BACKGROUND_WEIGHT = 0.1
CLEARANCE = 0.9  # cosine between the background's code and any other, at most


# One training step, from top to bottom.
def train(work: Workspace, glyphs: Glyphs, chosen: np.ndarray, settings: TrainSettings) -> None:  # noqa: C901
    """Train the tokenizer, or go on from its checkpoint, and write the weights of the release."""
    steps, device = settings.steps, settings.device
    torch.manual_seed(settings.seed)
    log = Log(work.file("vq.log"))
    rng = torch.Generator().manual_seed(settings.seed)
    model = VQTokenizer(CONFIG).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.quantize.embedding.weight.requires_grad_(False)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=settings.lr, betas=(0.9, 0.95), weight_decay=1e-4)
    ema = Ema(model, 0.995)
    usage = torch.ones(CONFIG.codebook_size, device=device)
    start = 0
    if state := load_tree(work.file("vq.safetensors")):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        usage, start = state["usage"].to(device), int(state["step"])
        rng.set_state(state["rng"])
    rgba = torch.from_numpy(glyphs.rgba)
    flippable = torch.tensor([may_flip(c) for c in glyphs.captions])
    picked = torch.from_numpy(chosen)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, settings.lr, 100)
        # Half of each batch from the glyphs that the target will draw, half from all.
        index = torch.randint(len(rgba), (settings.batch,), generator=rng)
        index[::2] = picked[torch.randint(len(picked), (len(index[::2]),), generator=rng)]
        x = jitter(rgba[index], flippable[index], rng).to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            z = model.latents(x)
            white = background(x, z.shape[1])
            if step >= WARM:
                if step == WARM:
                    model.quantize.embedding.weight.copy_(_kmeans(model, rgba, flippable, rng, device))
                ids = model.quantize.nearest(z).masked_fill(white, BACKGROUND)
                code = model.quantize.lookup(ids)
                distance = (z - code).square().sum(-1)
                passed = torch.where(white.unsqueeze(-1), code, z + (code - z).detach())
                y = model.decode_latents(passed.bfloat16())
            else:
                distance = (z - F.normalize(z.detach()[white].mean(0), dim=-1)).square().sum(-1) * white
                y = model.decode_latents(z.bfloat16())
        mse = F.mse_loss(y.float(), x)
        commit = distance[~white].mean()
        loss = mse + COMMIT * commit * mse.detach().clamp(min=0.002) + BACKGROUND_WEIGHT * distance[white].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        if step >= WARM:
            _update_codebook(model, z.detach()[~white], ids[~white], usage, rng)
        ema.update(model)
        if step >= WARM:  # the codebook is itself a moving average: averaging it again would detach it from its latents
            ema.model.quantize.load_state_dict(model.quantize.state_dict())
        if step % 50 == 0:
            missed = float((model.quantize.nearest(z)[white] != BACKGROUND).float().mean())
            log(f"vq step {step} mse {mse.item():.5f} commit {commit.item():.4f} background missed {missed:.3f}")
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_tree(
                work.file("vq.safetensors"),
                {
                    "model": dict(model.state_dict()),
                    "optimizer": optimizer.state_dict(),
                    "ema": ema.state_dict(),
                    "usage": usage,
                    "step": step + 1,
                    "rng": rng.get_state(),
                },
            )
            if step >= WARM:
                report = evaluate(ema.model, glyphs, chosen)
                log("vq " + " ".join(f"{k} {v:.2f}" for k, v in report.items()))
    write_weights(work.release / "vq.safetensors", ema.model, asdict(CONFIG), torch.float32)


def background(x: Tensor, side: int) -> Tensor:
    """bool [B, side, side]: cells that are white, as is a border of one cell's width around them."""
    cell = x.shape[-1] // side
    ink = ((1 - x).amax(1, keepdim=True) > 1e-3).float()
    return F.max_pool2d(ink, 3 * cell, stride=cell, padding=cell).squeeze(1) == 0


@torch.no_grad()
def _kmeans(model: VQTokenizer, rgba: Tensor, flippable: Tensor, rng: torch.Generator, device: str) -> Tensor:
    """Spherical k-means over the latents of some batches: the codebook's start."""
    batches, whites = [], []
    for _ in range(24):
        index = torch.randint(len(rgba), (32,), generator=rng)
        x = jitter(rgba[index], flippable[index], rng).to(device)
        z = model.latents(x).float()
        white = background(x, z.shape[1])
        whites.append(z[white])
        batches.append(z[~white])
    points = torch.cat(batches)
    points = points[torch.randperm(len(points), generator=rng)[:65536]]
    # Code 0 is the background's; each further one starts far from those before it.
    centres = F.normalize(torch.cat(whites).mean(0, keepdim=True), dim=-1)
    best = points @ centres[0]
    for _ in range(CONFIG.codebook_size - 1):
        weight = (1 - best).clamp(min=0)
        pick = points[torch.multinomial(weight, 1, generator=rng)]
        centres = torch.cat([centres, pick])
        best = torch.maximum(best, points @ pick[0])
    for _ in range(10):
        nearest = (points @ centres.T).argmax(-1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(sums.norm(dim=-1, keepdim=True) > 1e-6, F.normalize(sums, dim=-1), centres)
    return centres


@torch.no_grad()
def _update_codebook(model: VQTokenizer, z: Tensor, ids: Tensor, usage: Tensor, rng: torch.Generator) -> None:
    codes = model.quantize.codes
    count = torch.bincount(ids, minlength=len(codes)).float()
    mean = torch.zeros_like(codes).index_add_(0, ids, z.float())
    used = count > 0
    target = F.normalize(mean[used], dim=-1)
    # A code seen often in this batch moves further; one cell alone moves it little.
    pull = (1 - DECAY) * (count[used] / (count[used] + 2)).unsqueeze(-1) * 2
    codes[used] = F.normalize(torch.lerp(codes[used], target, pull), dim=-1)
    usage.mul_(0.99).add_(count, alpha=0.01)
    usage[BACKGROUND] = 1.0  # it follows the latents of white cells through the loss alone
    dead = usage < 0.01
    if dead.any():
        codes[dead] = z[torch.randint(len(z), (int(dead.sum()),), generator=rng)].float()
        usage[dead] = 0.5
    _keep_clear(codes)
    model.quantize.embedding.weight.copy_(codes)


def _keep_clear(codes: Tensor) -> None:
    """Turn codes away from the background's, in place: almost white cells crowd there and would win white ones."""
    centre = codes[BACKGROUND].clone()
    cosine = codes @ centre
    near = cosine > CLEARANCE
    near[BACKGROUND] = False
    if near.any():
        across = F.normalize(codes[near] - cosine[near, None] * centre, dim=-1)
        codes[near] = CLEARANCE * centre + (1 - CLEARANCE**2) ** 0.5 * across


@torch.no_grad()
def evaluate(model: VQTokenizer, glyphs: Glyphs, chosen: np.ndarray) -> dict[str, float]:
    """PSNR in dB on the clean glyphs (mean over images, and of the pooled error) and the codes used."""
    x = torch.from_numpy(on_white(glyphs.rgba)).permute(0, 3, 1, 2) * 2 - 1
    device = next(model.parameters()).device
    errors, used = [], set()
    for part in x.split(64):
        ids = model.encode(part.to(device))
        used |= set(ids.flatten().tolist())
        errors.append(((model.decode(ids).cpu() - part) / 2).square().mean((1, 2, 3)))
    mse = torch.cat(errors)
    psnr = -10 * mse.log10()
    return {
        "psnr_all": float(psnr.mean()),
        "psnr_all_pooled": float(-10 * mse.mean().log10()),
        "psnr_chosen": float(psnr[chosen].mean()),
        "psnr_chosen_pooled": float(-10 * mse[chosen].mean().log10()),
        "codes_used": float(len(used)),
    }

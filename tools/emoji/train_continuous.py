"""Stage `continuous`: the target of continuous tokens, a causal decoder with a diffusion head, trained from the start.

It reads tokens with the noise of its own last step, and its head learns the tokens without it, so that a drawn token
(a mean and that noise) is one of the kind that it was trained to read. Matrices are trained with Muon, the rest with
AdamW; the release is the moving average.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from coolsd_rt.models.continuous.config import ContinuousConfig
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.models.continuous.head import DiffusionHead, start_head
from coolsd_rt.train.loop import Ema, optimizers
from coolsd_rt.train.networks import write_weights

from .common import Workspace
from .data import Glyphs
from .latents import latents
from .loop import Training, TrainSettings
from .train_autoencoder import NOISE
from .train_target import GlyphOrder, drop_words, vocabulary

FILE = "continuous-target.safetensors"
CONFIG = ContinuousConfig(
    channels=8,
    last=NOISE,
    dim=192,
    layers=12,
    heads=3,
    ffn=512,
    grid=16,
    prefix=8,
    words=0,
    word_dim=192,
    head=256,
)
COPIES = 4  # noised copies of each token in a step: the head is small beside the decoder


def initialise(model: ContinuousDecoder) -> None:
    """Small normal weights; outputs of residual branches are scaled by depth."""
    for name, p in model.named_parameters():
        if p.ndim < 2 or name.startswith("head."):
            continue
        std = p.shape[-1] ** -0.5 * 0.7
        if name.endswith(("wo.weight", "w2.weight")):
            std /= (2 * model.cfg.layers) ** 0.5
        nn.init.normal_(p, std=std)
    nn.init.normal_(model.cls_embedding.embedding.weight, std=1.0)
    start_head(model.head)


def matrices(model: ContinuousDecoder) -> list[Tensor]:
    """What Muon trains: the layers, and the wide matrices of the head."""
    wide = [model.head.feature_in.weight, model.head.by_feature.weight]
    parts = (*model.layers, *model.head.blocks)
    return [p for part in parts for p in part.parameters() if p.ndim == 2] + wide


def stratified(copies: int, rows: int, trained: int, rng: torch.Generator) -> Tensor:
    """Times int64 [copies, rows, 1] from 1 to `trained`, evenly spread over a step: one for each copy of an image."""
    count = copies * rows
    share = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
    return (share * trained).long().clamp(max=trained - 1).reshape(copies, rows, 1) + 1


def weight_of(head: DiffusionHead, time: Tensor) -> Tensor:
    """Weight of v's error at times [...]: an error of the clean token far below the last step's noise is not seen."""
    b = torch.tensor([b for _, b in head.process.table], device=time.device)[time]
    return (b / head.cfg.last).square().clamp(max=1.0)


def head_loss(model: ContinuousDecoder, features: Tensor, clean: Tensor, rng: torch.Generator) -> Tensor:
    """Error of v, over `COPIES` noised copies of clean tokens [B, N, d] under features [B, N, C]."""
    head = model.head
    time = stratified(COPIES, len(clean), head.cfg.trained, rng).to(clean.device)
    noise = torch.randn(COPIES, *clean.shape, generator=rng).to(clean.device)
    state, wanted = head.noised(clean, time.expand(noise.shape[:-1]), noise)
    predicted = head.velocity(state, head.timed(time), head.modulations(features))
    errors = (predicted.float() - wanted).square().mean(-1)
    return (errors * weight_of(head, time)).mean()


def train(work: Workspace, glyphs: Glyphs, settings: TrainSettings, sizes: ContinuousConfig = CONFIG) -> None:
    """Train the model, or go on from its checkpoint, and write the weights of the release.

    sizes: the config, but for its words, prefix and channels.
    """
    device, seed = settings.device, settings.seed
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    vocab = vocabulary(glyphs)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = latents(work, glyphs, settings.pool, seed, device)
    config = replace(sizes, words=len(vocab.words), prefix=words.shape[1], channels=source.shape[-1])
    model = ContinuousDecoder(config)
    initialise(model)
    model.to(device)
    order = GlyphOrder(len(words), rng)
    opts = optimizers(model, matrices(model), settings.lr, 0.02)
    run = Training("continuous-target", model, opts, Ema(model, 0.998), settings, work.root)
    if state := run.resume():
        rng.set_state(state["rng"])
        order.left = state["order"]
    if settings.fuse:
        for layer in model.layers:
            layer.compile()
    for _ in run.remaining():
        index = order.next(settings.batch)
        pick = torch.randint(source.shape[1], (len(index),), generator=rng)
        clean = source[index, pick].float()
        tokens = (clean + config.last * torch.randn(clean.shape, generator=rng)).to(device)
        caption = drop_words(words[index], rng).to(device)
        with torch.autocast(device, torch.bfloat16):
            loss = head_loss(model, model.hidden(caption, tokens), clean.to(device), rng)
        run.update(loss, [loss.item()], "loss")
        if run.due:
            run.save(rng=rng.get_state(), order=order.left)
    vocab.save(work.release / "vocab.json")
    write_weights(work.release / FILE, run.ema.model, asdict(config))

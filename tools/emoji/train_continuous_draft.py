"""Stage `continuous-draft`: a smaller decoder with a smaller head, distilled from the released target.

It learns the target's v at the same states, times and captions, with and without words, so that CFG of any scale finds
the same two halves in both. Images come from the target's tokens.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor

from coolsd_rt.checkpoints.continuous import load_continuous
from coolsd_rt.models.continuous.config import ContinuousConfig
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.prompts import UNCONDITIONAL
from coolsd_rt.train.loop import Ema, optimizers
from coolsd_rt.train.networks import write_weights

from .common import Workspace
from .data import Glyphs
from .latents import latents
from .loop import Training, TrainSettings
from .train_continuous import COPIES, FILE, initialise, matrices, stratified, weight_of
from .train_target import GlyphOrder, blur_words, vocabulary

DRAFT_FILE = "continuous-draft.safetensors"
UNCONDITIONAL_SHARE = 0.3  # of images: in a round each is drafted with its caption and without


def draft_config(target: ContinuousConfig) -> ContinuousConfig:
    """A third of the target's layers, two thirds of its width, and half of its head's."""
    return replace(
        target,
        dim=target.dim // 3 * 2,
        layers=max(1, target.layers // 3),
        heads=max(1, target.heads * 2 // 3),
        ffn=target.ffn // 3 * 2,
        head=target.head // 2,
    )


def distance(
    draft: ContinuousDecoder, target: ContinuousDecoder, batch: tuple[Tensor, ...], rng: torch.Generator
) -> Tensor:
    """Error of the draft's v against the target's.

    batch: words int64 [B, W], clean tokens [B, N, d], and the same with the noise that is read.
    """
    words, clean, tokens = batch
    time = stratified(COPIES, len(clean), target.cfg.trained, rng).to(clean.device)
    noise = torch.randn(COPIES, *clean.shape, generator=rng).to(clean.device)
    state, _ = target.head.noised(clean, time.expand(noise.shape[:-1]), noise)
    found = []
    for model, learns in ((target, False), (draft, True)):
        with torch.set_grad_enabled(learns):
            features = model.hidden(words, tokens)
            head = model.head
            found.append(head.velocity(state, head.timed(time), head.modulations(features)).float())
    errors = (found[1] - found[0]).square().mean(-1)
    return (errors * weight_of(target.head, time)).mean()


def train(work: Workspace, glyphs: Glyphs, settings: TrainSettings) -> None:
    """Train the model, or go on from its checkpoint, and write the weights of the release."""
    device, seed = settings.device, settings.seed
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    target = load_continuous(work.release / FILE).to(device)
    model = ContinuousDecoder(draft_config(target.cfg))
    initialise(model)
    model.to(device)
    vocab = vocabulary(glyphs)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = latents(work, glyphs, settings.pool, seed, device)
    order = GlyphOrder(len(words), rng)
    opts = optimizers(model, matrices(model), settings.lr, 0.01)
    run = Training("continuous-draft", model, opts, Ema(model, 0.99), settings, work.root)
    if state := run.resume():
        rng.set_state(state["rng"])
        order.left = state["order"]
    if settings.fuse:
        for layer in (*target.layers, *model.layers):
            layer.compile()
    for _ in run.remaining():
        index = order.next(settings.batch)
        pick = torch.randint(source.shape[1], (len(index),), generator=rng)
        clean = source[index, pick].float()
        tokens = clean + target.cfg.last * torch.randn(clean.shape, generator=rng)
        caption = blur_words(words[index], rng)
        caption[torch.rand(len(caption), generator=rng) < UNCONDITIONAL_SHARE] = UNCONDITIONAL
        batch = tuple(x.to(device) for x in (caption, clean, tokens))
        with torch.autocast(device, torch.bfloat16):
            loss = distance(model, target, batch, rng)
        run.update(loss, [loss.item()], "distance")
        if run.due:
            run.save(rng=rng.get_state(), order=order.left)
    write_weights(work.release / DRAFT_FILE, run.ema.model, asdict(model.cfg))

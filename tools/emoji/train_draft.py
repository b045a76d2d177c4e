"""Stage `draft`: an EAGLE head distilled from the target's released weights.

Rows are trained as they are used: the first guess from the target's own features, further ones from the head's own
(rolled out `ROLL` steps, as EAGLE-3 does), against the target's distribution (soft cross-entropy, the quantity that
acceptance depends on) and its features (SmoothL1). Pictures come from the same jittered pool as the target's.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig

from .common import Ema, Log, Workspace, load_checkpoint, read_weights, release_weights, save_checkpoint
from .data import Glyphs
from .train_target import CONFIG, GlyphOrder, TokenPool, drop_words, load_tokenizer, rate, vocabulary

FEATURE_WEIGHT = 0.2
ROLL = 3  # steps of its own predictions in training
ROLL_DECAY = 0.8


def draft_config(target: LlamaGenConfig) -> EagleConfig:
    """The head's layer has the target's sizes."""
    return EagleConfig(dim=target.dim, heads=target.heads, ffn=target.ffn, norm_eps=target.norm_eps)


def rollout(
    head: Eagle, target: LlamaGen, embedded: Tensor, features: Tensor, steps: int
) -> list[tuple[Tensor, Tensor]]:
    """Guesses of the head when its input features are its own of `steps` earlier passes.

    embedded [R, S, C]: tokens 1..S; features [R, S, C]: the target's at 0..S-1. Pass j's row t holds a feature that is
    j guesses deep. Returns (guessed features of 1..S, logits) for each pass. Attention within a pass sees rows of the
    same depth, a good stand-in for the mix that it meets in a round.
    """
    passes, inputs = [], features
    for _ in range(steps):
        guess = head(embedded, inputs, target.rope)
        passes.append((guess, target.output(guess)))
        inputs = torch.cat([features[:, :1], guess[:, :-1]], dim=1)
    return passes


def load_target(work: Workspace, glyphs: Glyphs) -> LlamaGen:
    """The released target, frozen."""
    model = LlamaGen(replace(CONFIG, words=len(vocabulary(glyphs).words)))
    model.load_state_dict(read_weights(work.release / "target.safetensors"))
    return model.eval().requires_grad_(False)


def train(
    work: Workspace, glyphs: Glyphs, *, steps: int, batch: int, lr: float, pool: int, seed: int,
    device: str, fuse: bool,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    log = Log(work.file("draft.log"))
    rng = torch.Generator().manual_seed(seed + 1)
    target = load_target(work, glyphs).to(device)
    head = Eagle(draft_config(target.cfg))
    head.to(device)
    vocab = vocabulary(glyphs)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = TokenPool(glyphs, load_tokenizer(work, device), pool, rng)
    order = GlyphOrder(len(words), rng)
    matrices = [p for p in head.parameters() if p.ndim == 2]
    rest = [p for p in head.parameters() if p.ndim != 2]
    opts: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95)),
    ]
    ema = Ema(head, 0.99)
    start = 0
    if state := load_checkpoint(work.file("draft.pt")):
        head.load_state_dict(state["head"])
        ema.load_state_dict(state["ema"])
        for opt, saved in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        rng.set_state(state["rng"])
        start = int(state["step"])
        log(f"draft resumes at step {start}")
    if (shared := work.root / "target.pt").exists():  # the target's pool of tokenisations saves making another
        saved_pool = load_checkpoint(shared) or {}
        if saved_pool.get("codes") is not None and saved_pool["codes"].shape[0] == len(words):
            source.codes, source.filled = saved_pool["codes"], saved_pool["filled"]
    if fuse:
        for layer in (*target.layers, *head.layers):
            layer.compile()
    clock = time.monotonic()
    sums: list[list[float]] = []
    for step in range(start, steps):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = lr * rate(step, steps)
        index = order.next(batch)
        caption = drop_words(words[index], rng).to(device)
        codes = source.draw(index).to(device)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                _, features = target(caption, codes)
                p = torch.softmax(target.output(features).float(), dim=-1)
                embedded = torch.cat([target.cls_embedding(caption)[:, 1:], target.tok_embeddings(codes)], dim=1)
            # Row t guesses feature t + 1; the last token has no feature to be compared with.
            passes = rollout(head, target, embedded[:, :-1], features[:, :-1], ROLL)
        loss, report = _loss(passes, features[:, 1:].float(), p[:, 1:], target.cfg.prefix)
        for opt in opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        for opt in opts:
            opt.step()
        ema.update(head)
        sums.append(report)
        if (step + 1) % 20 == 0:
            mean = np.mean(sums[-20:], axis=0)
            pace = (time.monotonic() - clock) / 20
            log(f"draft step {step + 1} TV by depth {' '.join(f'{v:.3f}' for v in mean)} {pace:.2f} s/step")
            clock = time.monotonic()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            save_checkpoint(
                work.file("draft.pt"), head=head.state_dict(), opts=[o.state_dict() for o in opts],
                ema=ema.state_dict(), rng=rng.get_state(), step=step + 1,
            )  # fmt: skip
            release_weights(work.release / "draft.safetensors", ema.model, asdict(head.cfg))


def _loss(passes: list[tuple[Tensor, Tensor]], features: Tensor, p: Tensor, prefix: int) -> tuple[Tensor, list[float]]:
    """Soft cross-entropy and SmoothL1 over the rows whose next token is an image token; TV(P, Q) of each depth."""
    total, tv = features.new_zeros(()), []
    first = prefix - 2  # row t predicts position t + 2: the first image token is position `prefix`
    for depth, (guess, logits) in enumerate(passes):
        rows = slice(first + depth, None)
        log_q = torch.log_softmax(logits[:, rows].float(), dim=-1)
        soft = -(p[:, rows] * log_q).sum(-1).mean()
        smooth = F.smooth_l1_loss(guess[:, rows].float(), features[:, rows])
        total = total + ROLL_DECAY**depth * (soft + FEATURE_WEIGHT * smooth)
        with torch.no_grad():
            tv.append(float(0.5 * (p[:, rows] - log_q.exp()).abs().sum(-1).mean()))
    return total, tv

"""Stage `draft`: an EAGLE head distilled from the released target as it is used: guided, filtered, in chains.

A picture enters with its caption and without; P and Q are mixed from both at a scale drawn for each picture and keep
their likeliest codes, so what is trained is the pair of laws that a round compares. The first guess starts from the
target's own features, further ones from the head's own (rolled out `ROLL` steps, as EAGLE-3 does). The loss is soft
cross-entropy, TV(P, Q) itself (one minus the acceptance rate) and SmoothL1 on the features. Pictures come from the
target's jittered pool.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.models.conditions import UNCONDITIONAL
from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.llamagen import LlamaGen

from .common import Ema, Log, Workspace, load_checkpoint, read_weights, release_weights
from .data import Glyphs
from .loop import Training, optimizers
from .train_target import CONFIG, GlyphOrder, TokenPool, blur_words, load_tokenizer, vocabulary

TV_WEIGHT = 1.0
FEATURE_WEIGHT = 0.2
ROLL = 3  # steps of its own predictions in training
ROLL_DECAY = 0.8
SCALES = (1.0, 2.0)  # CFG scales of training, uniform
TOP_K = 6  # the spec's


def draft_config(target: DecoderConfig) -> EagleConfig:
    """The target's width and heads, a feed-forward twice as wide: it costs no further calls, and there is one layer."""
    return EagleConfig(dim=target.dim, heads=target.heads, ffn=2 * target.ffn, norm_eps=target.norm_eps)


def rollout(head: Eagle, target: LlamaGen, embedded: Tensor, features: Tensor, steps: int) -> list[Tensor]:
    """Guesses of the head when its input features are its own of `steps` earlier passes.

    embedded [R, S, C]: tokens 1..S; features [R, S, C]: the target's at 0..S-1. Pass j's row t holds a feature that is
    j guesses deep. Returns guessed features of 1..S for each pass. Attention within a pass sees rows of the same
    depth, a good stand-in for the mix that it meets in a round.
    """
    passes, inputs = [], features
    for _ in range(steps):
        guess = head(embedded, inputs, target.rope)
        passes.append(guess)
        inputs = torch.cat([features[:, :1], guess[:, :-1]], dim=1)
    return passes


def guided(features: Tensor, scale: Tensor) -> Tensor:
    """CFG on features [2M, S, C] (conditional rows first), scale [M, 1, 1] -> [M, S, C]: the head is linear."""
    cond, uncond = features.chunk(2)
    return uncond + (cond - uncond) * scale


def filtered(logits: Tensor) -> Tensor:
    """Probabilities over the `TOP_K` likeliest codes [..., V]."""
    least = logits.topk(TOP_K, dim=-1).values[..., -1:]
    return torch.softmax(logits.masked_fill(logits < least, float("-inf")), dim=-1)


def losses(
    target: LlamaGen, passes: list[Tensor], features: Tensor, scale: Tensor
) -> tuple[Tensor, list[float]]:  # fmt: skip
    """The loss over the rows whose next token is an image token, and TV(P, Q) of each depth.

    passes and features [2M, S, C]: guessed and true features of positions 1..S. The cross-entropy sees all of Q, so
    that a code of P that the filter would keep from Q still pulls.
    """
    with torch.no_grad():
        p = filtered(target.output(guided(features, scale)).float())
    total, tvs = torch.zeros((), device=features.device), []
    first = target.cfg.prefix - 2  # row t guesses position t + 1, whose logits predict token t + 2
    for depth, guess in enumerate(passes):
        rows = slice(first + depth, None)
        logits = target.output(guided(guess[:, rows], scale)).float()
        soft = -(p[:, rows] * torch.log_softmax(logits, dim=-1)).sum(-1).mean()
        tv = 0.5 * (p[:, rows] - filtered(logits)).abs().sum(-1).mean()
        smooth = F.smooth_l1_loss(guess[:, rows].float(), features[:, rows].float())
        total = total + ROLL_DECAY**depth * (soft + TV_WEIGHT * tv + FEATURE_WEIGHT * smooth)
        tvs.append(tv.item())
    return total, tvs


def load_target(work: Workspace, glyphs: Glyphs) -> LlamaGen:
    """The released target, frozen."""
    model = LlamaGen(replace(CONFIG, words=len(vocabulary(glyphs).words)))
    model.load_state_dict(read_weights(work.release / "target.safetensors"))
    return model.eval().requires_grad_(False)


def share_pool(work: Workspace, source: TokenPool) -> None:
    """The target's pool of tokenisations, if it is there, saves making another."""
    saved = load_checkpoint(work.file("target.pt")) or {}
    if saved and saved["codes"].shape[0] == len(source.filled):
        source.codes, source.filled = saved["codes"], saved["filled"]


def train(
    work: Workspace, glyphs: Glyphs, *, steps: int, batch: int, lr: float, pool: int, seed: int, device: str, fuse: bool
) -> None:
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    target = load_target(work, glyphs).to(device)
    head = Eagle(draft_config(target.cfg)).to(device)
    vocab = vocabulary(glyphs)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = TokenPool(glyphs, load_tokenizer(work, device), pool, rng)
    share_pool(work, source)
    order = GlyphOrder(len(words), rng)
    matrices = [p for p in head.parameters() if p.ndim == 2]
    run = Training(
        "draft", head, optimizers(head, matrices, lr, 0.01), Ema(head, 0.99), lr=lr, steps=steps, save_every=100,
        file=work.file("draft.pt"), log=Log(work.file("draft.log")),
    )  # fmt: skip
    if state := run.resume():
        rng.set_state(state["rng"])
    if fuse:
        for layer in (*target.layers, *head.layers):
            layer.compile()
    for _ in run.remaining():
        index = order.next(batch)
        with_words = blur_words(words[index], rng)
        caption = torch.cat([with_words, torch.full_like(with_words, UNCONDITIONAL)]).to(device)
        codes = source.draw(index).repeat(2, 1).to(device)
        scale = torch.empty(len(index), 1, 1).uniform_(*SCALES, generator=rng).to(device)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                _, features = target(caption, codes)
                embedded = torch.cat([target.cls_embedding(caption)[:, 1:], target.tok_embeddings(codes)], dim=1)
            # Row t guesses feature t + 1; the last token has no feature to be compared with.
            passes = rollout(head, target, embedded[:, :-1], features[:, :-1], ROLL)
            loss, tvs = losses(target, passes, features[:, 1:], scale)
        run.update(loss, tvs, "TV by depth")
        if run.due:
            run.save(rng=rng.get_state())
    release_weights(work.release / "draft.safetensors", run.ema.model, asdict(head.cfg))

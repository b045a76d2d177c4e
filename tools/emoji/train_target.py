"""Stage `target`: the LlamaGen target, trained from the start on jittered pictures.

One glyph becomes many token sequences (shift, mirror, brightness, colour, grain), which is the ambiguity that
relaxed acceptance lives on. Matrices are trained with Muon, the rest with AdamW; the release is the moving average.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.conditions import UNCONDITIONAL, UNKNOWN, WordVocabulary
from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig
from coolsd_rt.models.vq import VQConfig, VQTokenizer

from .common import Ema, Log, Workspace, load_checkpoint, read_weights, release_weights, save_checkpoint
from .data import Glyphs, jitter, may_flip

CONFIG = LlamaGenConfig(
    vocab=1024, dim=192, layers=12, heads=3, ffn=512, grid=16, prefix=8, words=0, word_dim=192, prefix_rope="identity"
)
UNCONDITIONAL_SHARE = 0.1
UNKNOWN_SHARE = 0.05  # pictures one of whose words is replaced by <unknown>
STRENGTH = 0.7  # of the jitter in brightness, colour and grain, against the tokenizer's own training
DECAY_SHARE = 0.35  # of all steps, at the end, with a falling learning rate


class TokenPool:
    """Tokenisations of jittered glyphs: made as they are asked for, and drawn again once there are enough."""

    def __init__(self, glyphs: Glyphs, tokenizer: VQTokenizer, per_glyph: int, rng: torch.Generator) -> None:
        self.rgba = torch.from_numpy(glyphs.rgba)
        self.flippable = torch.tensor([may_flip(c) for c in glyphs.captions])
        self.tokenizer, self.rng = tokenizer, rng
        tokens = (64 // tokenizer.cfg.downsampling) ** 2
        self.codes = torch.zeros(len(self.rgba), per_glyph, tokens, dtype=torch.int16)
        self.filled = torch.zeros(len(self.rgba), dtype=torch.int64)

    def draw(self, index: Tensor) -> Tensor:
        """Codes int64 [B, tokens] of the glyphs `index`."""
        room = self.codes.shape[1]
        fresh = index[self.filled[index] < room].unique()
        if len(fresh):
            device = next(self.tokenizer.parameters()).device
            x = jitter(self.rgba[fresh], self.flippable[fresh], self.rng, STRENGTH)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                codes = self.tokenizer.encode(x.to(device)).cpu()
            self.codes[fresh, self.filled[fresh]] = codes.to(torch.int16)
            self.filled[fresh] += 1
        # The newest tokenisation where one was just made, any of the pool otherwise.
        newest = self.filled[index] - 1
        any_one = (torch.rand(len(index), generator=self.rng) * self.filled[index]).long()
        pick = torch.where(torch.isin(index, fresh), newest, any_one)
        return self.codes[index, pick].long()


class GlyphOrder:
    """Glyph indices in shuffled epochs."""

    def __init__(self, count: int, rng: torch.Generator) -> None:
        self.count, self.rng = count, rng
        self.left = torch.empty(0, dtype=torch.int64)

    def next(self, batch: int) -> Tensor:
        while len(self.left) < batch:
            self.left = torch.cat([self.left, torch.randperm(self.count, generator=self.rng)])
        taken, self.left = self.left[:batch], self.left[batch:]
        return taken


def vocabulary(glyphs: Glyphs) -> WordVocabulary:
    """The trained words; the prefix holds `CONFIG.prefix` of them."""
    return WordVocabulary.from_captions(glyphs.captions, CONFIG.prefix)


def load_tokenizer(work: Workspace, device: str) -> VQTokenizer:
    """The released tokenizer, frozen."""
    from .train_vq import CONFIG as VQ

    config: VQConfig = VQ
    model = VQTokenizer(config)
    model.load_state_dict(read_weights(work.release / "vq.safetensors"))
    return model.eval().requires_grad_(False).to(device)


def drop_words(words: Tensor, rng: torch.Generator) -> Tensor:
    """10% of rows lose their caption (for CFG); some of the rest have one word replaced by <unknown>."""
    b, w = words.shape
    rolls = torch.rand(b, generator=rng)
    out = words.clone()
    lost = (rolls >= UNCONDITIONAL_SHARE) & (rolls < UNCONDITIONAL_SHARE + UNKNOWN_SHARE)
    where = torch.randint(w, (b,), generator=rng)
    row = torch.arange(b)
    out[row[lost], where[lost]] = torch.where(out[row[lost], where[lost]] > 0, UNKNOWN, out[row[lost], where[lost]])
    out[rolls < UNCONDITIONAL_SHARE] = UNCONDITIONAL
    return out


def optimizers(model: LlamaGen, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, head and norms."""
    matrices = [p for layer in model.layers for p in layer.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int, warmup: int = 60) -> float:
    """Share of the peak learning rate: warm-up, plateau, and a linear fall over the last `DECAY_SHARE`."""
    fall = (steps - step) / max(1.0, DECAY_SHARE * steps)
    return min(1.0, (step + 1) / warmup, max(0.01, fall))


def initialise(model: LlamaGen) -> None:
    """Small normal weights; outputs of each residual branch start at a depth-scaled size."""
    for name, p in model.named_parameters():
        if p.ndim < 2:
            continue
        std = 0.02 if "embedding" in name else p.shape[-1] ** -0.5 * 0.7
        if name.endswith(("wo.weight", "w2.weight")):
            std /= (2 * model.cfg.layers) ** 0.5
        nn.init.normal_(p, std=std)
    nn.init.normal_(model.output.weight, std=0.02)
    nn.init.normal_(model.tok_embeddings.weight, std=0.3)
    nn.init.normal_(model.cls_embedding.embedding.weight, std=1.0)


def train(
    work: Workspace, glyphs: Glyphs, *, steps: int, batch: int, lr: float, pool: int, seed: int, device: str, fuse: bool
) -> None:
    torch.manual_seed(seed)
    log = Log(work.file("target.log"))
    rng = torch.Generator().manual_seed(seed)
    vocab = vocabulary(glyphs)
    config = replace(CONFIG, words=len(vocab.words))
    model = LlamaGen(config)
    initialise(model)
    model.to(device)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = TokenPool(glyphs, load_tokenizer(work, device), pool, rng)
    order = GlyphOrder(len(words), rng)
    opts = optimizers(model, lr)
    ema = Ema(model, 0.998)
    start = 0
    if state := load_checkpoint(work.file("target.pt")):
        start = _resume(state, model, opts, ema, source, rng)
        log(f"target resumes at step {start}")
    if fuse:  # one compiled graph serves all layers; it takes a minute or two and halves the step
        for layer in model.layers:
            layer.compile()
    clock, losses = time.monotonic(), []
    for step in range(start, steps):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = lr * rate(step, steps)
        index = order.next(batch)
        codes = source.draw(index).to(device)
        caption = drop_words(words[index], rng).to(device)
        with torch.autocast(device, torch.bfloat16):
            logits, _ = model(caption, codes)
        loss = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
        for opt in opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        ema.update(model)
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            log(f"target step {step + 1} loss {np.mean(losses[-20:]):.4f} {(time.monotonic() - clock) / 20:.2f} s/step")
            clock = time.monotonic()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            save_checkpoint(
                work.file("target.pt"), model=model.state_dict(), opts=[o.state_dict() for o in opts],
                ema=ema.state_dict(), codes=source.codes, filled=source.filled, rng=rng.get_state(), step=step + 1,
            )  # fmt: skip
    vocab.save(work.release / "vocab.json")
    release_weights(work.release / "target.safetensors", ema.model, asdict(config))


def _resume(
    state: dict[str, Any], model: LlamaGen, opts: list[torch.optim.Optimizer], ema: Ema[LlamaGen], source: TokenPool,
    rng: torch.Generator,
) -> int:  # fmt: skip
    model.load_state_dict(state["model"])
    for opt, saved in zip(opts, state["opts"], strict=True):
        opt.load_state_dict(saved)
    ema.load_state_dict(state["ema"])
    source.codes, source.filled = state["codes"], state["filled"]
    rng.set_state(state["rng"])
    return int(state["step"])

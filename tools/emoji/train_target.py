"""Stage `target`: the LlamaGen target, trained from the start on jittered images.

One glyph becomes many token sequences (shift, mirror, brightness, colour, grain), which is the ambiguity that
relaxed acceptance lives on. Matrices are trained with Muon, the rest with AdamW; the release is the moving average.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.prompts import UNCONDITIONAL, UNKNOWN, WordVocabulary
from coolsd_rt.train.loop import Ema, optimizers
from coolsd_rt.train.networks import initialise, write_weights

from .common import Workspace, read_weights
from .data import Glyphs, jitter, may_flip
from .loop import Training, TrainSettings

CONFIG = LlamaGenConfig(
    vocab=1024, dim=192, layers=12, heads=3, ffn=512, grid=16, prefix=8, words=0, word_dim=192, prefix_rope="identity"
)
UNCONDITIONAL_SHARE = 0.1
UNKNOWN_SHARE = 0.05  # images one of whose words is replaced by <unknown>
STRENGTH = 0.7  # of the jitter in brightness, colour and grain, against the tokenizer's own training


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


def blur_words(words: Tensor, rng: torch.Generator) -> Tensor:
    """Some rows have one of their words replaced by <unknown>."""
    b, w = words.shape
    row, where = torch.arange(b), torch.randint(w, (b,), generator=rng)
    here = words[row, where]
    lost = (torch.rand(b, generator=rng) < UNKNOWN_SHARE) & (here > 0)
    out = words.clone()
    out[row, where] = torch.where(lost, UNKNOWN, here)
    return out


def drop_words(words: Tensor, rng: torch.Generator) -> Tensor:
    """10% of rows lose their caption (for CFG); some of the rest have one word replaced by <unknown>."""
    out = blur_words(words, rng)
    out[torch.rand(len(words), generator=rng) < UNCONDITIONAL_SHARE] = UNCONDITIONAL
    return out


def train(work: Workspace, glyphs: Glyphs, settings: TrainSettings) -> None:
    """Train the model, or go on from its checkpoint, and write the weights of the release."""
    device, seed = settings.device, settings.seed
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    vocab = vocabulary(glyphs)
    config = replace(CONFIG, words=len(vocab.words))
    model = LlamaGen(config)
    initialise(model)
    model.to(device)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = TokenPool(glyphs, load_tokenizer(work, device), settings.pool, rng)
    order = GlyphOrder(len(words), rng)
    matrices = [p for layer in model.layers for p in layer.parameters() if p.ndim == 2]
    work.root.mkdir(parents=True, exist_ok=True)
    run = Training(
        "target",
        model,
        optimizers(model, matrices, settings.lr, 0.02),
        Ema(model, 0.998),
        settings,
        work.root,
    )
    if state := run.resume():
        source.codes, source.filled = state["codes"], state["filled"]
        rng.set_state(state["rng"])
    if settings.fuse:  # one compiled graph serves all layers; it takes a minute or two and halves the step
        for layer in model.layers:
            layer.compile()
    for _ in run.remaining():
        index = order.next(settings.batch)
        codes = source.draw(index).to(device)
        caption = drop_words(words[index], rng).to(device)
        with torch.autocast(device, torch.bfloat16):
            logits, _ = model(caption, codes)
        loss = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
        run.update(loss, [loss.item()], "loss")
        if run.due:
            run.save(codes=source.codes, filled=source.filled, rng=rng.get_state())
    vocab.save(work.release / "vocab.json")
    write_weights(work.release / "target.safetensors", run.ema.model, asdict(config))

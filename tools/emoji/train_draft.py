"""Stage `draft`: an EAGLE head distilled from the released target as it is used: guided, filtered, in chains.

An image enters with its caption and without; P and Q are mixed from both at a scale drawn for each image and keep
their likeliest codes, so what is trained is the pair of laws that a round compares. Chains and loss are those of
`coolsd_rt.train`: the first guess starts from the target's own features, further ones from the head's own. Images
come from the target's jittered pool, and captions lose words now and then, which `coolsd-rt train-draft` does not do.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.prompts import UNCONDITIONAL
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.train.checkpoint import load_tree
from coolsd_rt.train.loop import Ema, optimizers
from coolsd_rt.train.networks import write_weights
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Example, HeadStudent

from .common import Workspace, read_weights
from .data import Glyphs
from .loop import Training, TrainSettings
from .train_target import CONFIG, GlyphOrder, TokenPool, blur_words, load_tokenizer, vocabulary

STEPS = 3  # of its own predictions in training
SCALES = (1.0, 2.0)  # CFG scales of training, uniform
OBJECTIVE = Objective(Sampling(top_k=6))  # the spec's filter


def draft_config(target: DecoderConfig) -> EagleConfig:
    """The target's width and heads, a feed-forward twice as wide: it costs no further calls, and there is one layer."""
    return EagleConfig(dim=target.dim, heads=target.heads, ffn=2 * target.ffn, norm_eps=target.norm_eps)


def load_target(work: Workspace, glyphs: Glyphs) -> LlamaGen:
    """The released target, frozen."""
    model = LlamaGen(replace(CONFIG, words=len(vocabulary(glyphs).words)))
    model.load_state_dict(read_weights(work.release / "target.safetensors"))
    return model.eval().requires_grad_(False)


def share_pool(work: Workspace, source: TokenPool) -> None:
    """The target's pool of tokenisations, if it is there, saves making another."""
    saved = load_tree(work.file("target.safetensors")) or {}
    if saved and saved["codes"].shape[0] == len(source.filled):
        source.codes, source.filled = saved["codes"], saved["filled"]


def train(work: Workspace, glyphs: Glyphs, settings: TrainSettings) -> None:
    """Train the model, or go on from its checkpoint, and write the weights of the release."""
    device, seed = settings.device, settings.seed
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    target = load_target(work, glyphs).to(device)
    head = Eagle(draft_config(target.cfg)).to(device)
    vocab = vocabulary(glyphs)
    words = torch.tensor([vocab.encode(c).ids for c in glyphs.captions])
    source = TokenPool(glyphs, load_tokenizer(work, device), settings.pool, rng)
    share_pool(work, source)
    order = GlyphOrder(len(words), rng)
    matrices = [p for p in head.parameters() if p.ndim == 2]
    work.root.mkdir(parents=True, exist_ok=True)
    run = Training(
        "draft",
        head,
        optimizers(head, matrices, settings.lr, 0.01),
        Ema(head, 0.99),
        settings,
        work.root,
    )
    if state := run.resume():
        rng.set_state(state["rng"])
    if settings.fuse:
        for layer in target.layers:
            layer.compile()
    student = HeadStudent(head, target)
    free = torch.ones(target.cfg.tokens, dtype=torch.bool, device=device)
    for _ in run.remaining():
        index = order.next(settings.batch)
        with_words = blur_words(words[index], rng)
        caption = torch.cat([with_words, torch.full_like(with_words, UNCONDITIONAL)]).to(device)
        codes = source.draw(index).to(device)
        scale = torch.empty(len(index), 1).uniform_(*SCALES, generator=rng).expand(codes.shape).to(device)
        with torch.autocast(device, torch.bfloat16):
            loss, tvs = OBJECTIVE.loss(student.along(Example(caption, None, codes, scale), STEPS), free)
        run.update(loss, tvs, "TV by depth")
        if run.due:
            run.save(rng=rng.get_state())
    write_weights(work.release / "draft.safetensors", run.ema.model, asdict(head.cfg))

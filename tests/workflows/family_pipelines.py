"""A tiny pipeline of every family of targets, in real files: random weights, what its prompts are read with, a spec."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from coolsd_rt.models.config import DecoderConfig, VQConfig
from coolsd_rt.models.families import family_of
from coolsd_rt.models.vq import VQTokenizer
from tests import tiny
from tests.models.family_cases import CONFIGS, HEADS, random_draft, random_target
from tests.prompts.encoders import DIM, write_encoder
from tests.prompts.test_tokens import W, write_tokenizer

WORDS = tiny.VOCABULARY
CHAT = "{% for m in messages %}<|User|> {{ m.content }} {% endfor %}<|Assistant|>"
PIXELS = 64  # 4 cells of 16


@dataclass(frozen=True)
class Case:
    """The target's config, the spec's condition, and two prompts of different length."""

    config: DecoderConfig
    condition: str
    prompts: tuple[str, str] = ("red apple", "star")
    output: str = "image: {tokenizer: vq, weights: vq.safetensors}"


def _resized(name: str, **sizes: Any) -> DecoderConfig:
    """With one layer, where `sizes` do not say: an export is slow, and LlamaGen's has one behind another."""
    return replace(CONFIGS[name], **{"layers": 1, **sizes})


TEXT_W = 160  # more than two buckets of cache rows: prompts are short, so that sessions cut the prefix
_TOKENS = f"kind: tokens, tokenizer: tokenizer.json, length: {W}"
CASES = {
    "llamagen": Case(
        _resized("llamagen", words=len(WORDS.words), layers=2),
        "{kind: words, vocab: vocab.json}",
    ),
    "llamagen-c2i": Case(_resized("llamagen-c2i"), "{kind: class, classes: 10}", ("3", "7")),
    "llamagen-t2i": Case(
        _resized("llamagen-t2i", prefix=6, text_dim=DIM),
        "{kind: t5, length: 6, folder: t5, precision: fp32}",
    ),
    "lumina-mgpt": Case(
        _resized("lumina-mgpt", prefix=W, text=8900),
        f"{{{_TOKENS}, layout: lumina, width: {PIXELS}, height: {PIXELS}}}",
    ),
    "anole": Case(_resized("anole", prefix=W, text=8900), f"{{{_TOKENS}, layout: anole}}"),
    "janus-pro": Case(_resized("janus-pro", prefix=W), f"{{{_TOKENS}, layout: janus}}"),
    "llama": Case(
        _resized("llama", prefix=TEXT_W),
        f"{{kind: text, tokenizer: tokenizer.json, chat_template: chat.jinja, length: {TEXT_W}}}",
        output='text: {length: 16, end: ["<pad>"], neighbours: 8}\npacing: {kind: manual}',
    ),
}

_HEADS = {"llamagen-t2i": "lantern", "lumina-mgpt": "anole", "anole": "anole", "llama": "part"}  # as published for them


def write_pipeline(folder: Path, name: str, engine: str = "{max_batch: 4}", draft: str = "eagle") -> Path:
    """All files of the family's pipeline; returns the spec. draft: eagle or jacobi."""
    folder.mkdir(parents=True, exist_ok=True)
    case, target = CASES[name], random_target(CASES[name].config)
    header = asdict(case.config) | {"family": family_of(case.config).name}
    tiny.write_weights(folder / "target.safetensors", target, header)
    head = random_draft(target, **HEADS[_HEADS.get(name, "plain")])
    tiny.write_weights(folder / "draft.safetensors", head, head.cfg)
    image = VQConfig(
        codebook_size=case.config.layout.codes,
        codebook_dim=4,
        channels=8,
        multipliers=(1,) * 5,
        z_channels=8,
        res_blocks=1,
        norm_groups=4,
        unit_codes=name not in ("lumina-mgpt", "anole"),
    )
    torch.manual_seed(4)
    tiny.write_weights(folder / "vq.safetensors", VQTokenizer(image), image)
    WORDS.save(folder / "vocab.json")
    if "t5" in case.condition:
        write_encoder(folder / "t5")
    if "tokenizer" in case.condition:
        write_tokenizer(folder / "tokenizer.json")
    (folder / "chat.jinja").write_text(CHAT)
    drafts = {"eagle": "{model: eagle, weights: draft.safetensors, length: 3}", "jacobi": "{model: jacobi, length: 3}"}
    (folder / "family.yaml").write_text(
        f"version: 1\nname: family\ntarget: {{model: {name}, weights: target.safetensors}}\n"
        f"draft: {drafts[draft]}\n{case.output}\n"
        f"condition: {case.condition}\nschedule: {{kind: exponential, delta: 1.3}}\n"
        f"sampling: {{cfg_scale: 2.0, top_k: 12}}\nengine: {engine}\n"
    )
    return folder / "family.yaml"

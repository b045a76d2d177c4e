"""A pipeline so small that it is exported in seconds: random weights in real files, and a spec that names them.

Head dim 32, ffn 96, zero prefix rows of RoPE, an image of 4 x 4 tokens and 8 x 8 pixels.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.prompts import WordVocabulary

VOCABULARY = WordVocabulary.from_captions(["red apple", "blue star", "green leaf"], 3)
TARGET = LlamaGenConfig(
    vocab=32, dim=64, layers=2, heads=2, ffn=96, grid=4, prefix=3, words=len(VOCABULARY.words), word_dim=16
)
DRAFT = EagleConfig(dim=64, heads=2, ffn=96)
IMAGE = VQConfig(
    codebook_size=32, codebook_dim=4, channels=8, multipliers=(1, 2), z_channels=8, res_blocks=1, norm_groups=4
)
LENGTH = 3
SIDE = 8

SPEC = f"""\
version: 1
name: tiny
target: {{model: llamagen, weights: target.safetensors}}
draft: {{model: eagle, weights: draft.safetensors, length: {LENGTH}}}
image: {{tokenizer: vq, weights: vq.safetensors}}
condition: {{kind: words, vocab: vocab.json}}
schedule: {{kind: exponential, delta: 1.1}}
pacing: {{kind: manual}}
sampling: {{cfg_scale: 2.0}}
engine: {{precision: fp32, max_batch: 4, quantization: block}}
"""


def write_weights(path: Path, model: nn.Module, config: Any) -> None:
    """As the training tools release them: float16, the config in the header."""
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    config = config if isinstance(config, dict) else asdict(config)
    save_file(tensors, str(path), metadata={"config": json.dumps(config)})


def networks(
    seed: int = 0, target_config: LlamaGenConfig = TARGET, draft_config: EagleConfig = DRAFT
) -> tuple[LlamaGen, Eagle, VQTokenizer]:
    """Random ones with distributions neither flat nor sharp, and norms that are not ones."""
    torch.manual_seed(seed)
    target, draft, image = LlamaGen(target_config), Eagle(draft_config), VQTokenizer(IMAGE)
    with torch.no_grad():
        target.output.weight.mul_(4)
        for module in (*target.modules(), *draft.modules()):
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim == 1:
                weight.uniform_(0.5, 1.5)
    return target.eval(), draft.eval(), image.eval()


def write_spec(
    folder: Path, text: str = SPEC, target_config: LlamaGenConfig = TARGET, draft_config: EagleConfig = DRAFT
) -> Path:
    """All files of the pipeline in `folder`; returns the spec's path."""
    folder.mkdir(parents=True, exist_ok=True)
    target, draft, image = networks(0, target_config, draft_config)
    write_weights(folder / "target.safetensors", target, target_config)
    write_weights(folder / "draft.safetensors", draft, draft_config)
    write_weights(folder / "vq.safetensors", image, IMAGE)
    VOCABULARY.save(folder / "vocab.json")
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    return folder / "tiny.yaml"

"""The tokens that continuous models are trained on: each glyph encoded under many jitters, once, and kept in a file.

Knows the autoencoder and the jitter. Does not know what is trained on the tokens.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.checkpoints.continuous import load_autoencoder
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.train.checkpoint import load_tree, save_tree

from .common import Workspace
from .data import Glyphs, jitter, may_flip
from .train_autoencoder import FILE
from .train_target import STRENGTH

_CHUNK = 64  # glyphs encoded at once


def latents(work: Workspace, glyphs: Glyphs, pool: int, seed: int, device: str) -> Tensor:
    """Tokens without noise, float16 [N, pool, G*G, d], read from the workspace or made and kept there.

    They are made again if the autoencoder, the glyphs, the pool or the seed is another than the kept ones had.
    """
    path, source = work.file("latents.safetensors"), work.release / FILE
    identity = {
        "autoencoder": sha256_file(source),
        "glyphs": hashlib.sha256(glyphs.rgba.tobytes()).hexdigest(),
        "pool": pool,
        "seed": seed,
        "strength": STRENGTH,
    }
    kept = load_tree(path)
    if kept is not None and kept["identity"] == identity:
        found: Tensor = kept["latents"]
        return found
    made = _encode(source, glyphs, pool, seed, device)
    state: dict[str, Any] = {"identity": identity, "latents": made}
    save_tree(path, state)
    return made


@torch.no_grad()
def _encode(source: Path, glyphs: Glyphs, pool: int, seed: int, device: str) -> Tensor:
    model = load_autoencoder(source).to(device)
    rng = torch.Generator().manual_seed(seed)
    rgba = torch.from_numpy(glyphs.rgba)
    flippable = torch.tensor([may_flip(c) for c in glyphs.captions])
    passes = []
    for _ in range(pool):
        parts = []
        for index in torch.arange(len(rgba)).split(_CHUNK):
            x = jitter(rgba[index], flippable[index], rng, STRENGTH).to(device)
            with torch.autocast(device, torch.bfloat16):
                parts.append(model.encode(x).half().cpu())
        passes.append(torch.cat(parts))
    return torch.stack(passes, 1)

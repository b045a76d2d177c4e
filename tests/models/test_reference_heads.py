"""LANTERN's EAGLE heads against a second implementation, written here from facts of their public code.

Two kinds are published: for LlamaGen, which know no condition but by its features, padding included, and whose table
is of their own; and for Chameleon's kin, whole Chameleon layers, padding masked. Ours get them through `convert`, as
folders with a config.json and one pickle.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.load import load_draft, load_target
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import EagleConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.families.anole import AnoleConfig
from coolsd_rt.models.families.lumina import LuminaConfig
from tests.models.family_cases import CONFIGS, random_target, relative
from tests.models.test_reference_llamagen import (
    CAPTION,
    DIM,
    FFN,
    HEADS,
    TOLERANCE,
    VOCAB,
    State,
    checkpoint,
    given_for,
    layer,
)

ROWS, ACCEPTED, CHAIN = 3, 12, 4
TEXT, WIDE, WIDTH = 8900, 64, 9  # rows of a language model's table, its width, positions of a prompt
LLAMAS = {
    "wo": "self_attn.o_proj", "w1": "mlp.gate_proj", "w3": "mlp.up_proj", "w2": "mlp.down_proj",
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def head(dim: int, heads: int, table: int, chameleons: bool) -> State:
    """Random weights under LANTERN's published names."""
    torch.manual_seed(8)
    at, size = "layers.0.", dim // heads
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (table, dim), "fc.weight": (dim, 2 * dim), "fc.bias": (dim,),
        **{f"{at}self_attn.{p}_proj.weight": (dim, dim) for p in "qkvo"},
        f"{at}mlp.gate_proj.weight": (FFN, dim), f"{at}mlp.up_proj.weight": (FFN, dim),
        f"{at}mlp.down_proj.weight": (dim, FFN), f"{at}post_attention_layernorm.weight": (dim,),
    }  # fmt: skip
    if chameleons:
        shapes |= {f"{at}self_attn.{p}_norm.{kind}": (heads, size) for p in "qk" for kind in ("weight", "bias")}
        shapes[f"{at}input_layernorm.weight"] = (dim,)
    plain = {n: len(s) == 1 or "_norm" in n for n, s in shapes.items()}
    return {n: torch.rand(s) + 0.5 if plain[n] else torch.randn(s) / s[-1] ** 0.5 for n, s in shapes.items()}


def converted(w: State, folder: Path, **config: Any) -> Path:
    """Their folder, and what `convert` makes of it."""
    (folder / "published").mkdir()
    torch.save(w, folder / "published/pytorch_model.bin")
    (folder / "published/config.json").write_text(json.dumps(config))
    done = convert(folder / "published", folder / "head.safetensors")
    assert done.family == "eagle"
    return done.path


def guesses(draft: Eagle, target: Decoder, ids: Tensor, features: Tensor, prefix: Tensor, start: Tensor) -> Tensor:
    """Features that ours guesses: along known ones in several steps, then along its own."""
    count, found, pos = features.shape[1], [], 0
    caches = draft.caches(len(ids), ids.shape[1] + 2)
    for size in (prefix.shape[1] - 1, 1, 1, 6, count - prefix.shape[1] - 7):
        at, part = torch.full((len(ids),), pos), slice(pos, pos + size)
        found.append(draft.step(target, ids[:, part], features[:, part], at, prefix, caches, start)[1])
        pos += size
    for i in range(CHAIN):
        at, known = torch.full((len(ids),), count + i), found[-1][:, -1:]
        found.append(draft.step(target, ids[:, count + i : count + i + 1], known, at, prefix, caches, start)[1])
    return torch.cat(found, dim=1)


@torch.no_grad()
def test_heads_for_llamagen(tmp_path: Path) -> None:
    """eps 1e-6, all slots of the caption seen, padding included, each embedded as code 0 of the head's own table."""
    state, w = checkpoint("t2i"), head(DIM, HEADS, VOCAB, chameleons=False)
    torch.save(state, tmp_path / "target.pt")
    target = load_target(
        convert(tmp_path / "target.pt", tmp_path / "t.safetensors", None, ConvertOptions(256, HEADS)).path
    )
    draft = load_draft(converted(w, tmp_path, rms_norm_eps=1e-6, num_attention_heads=HEADS), target)
    assert draft.cfg == EagleConfig(DIM, HEADS, FFN, 1e-6, vocab=VOCAB, sees_padding=True, blank_prefix=True)
    ours: State = {
        f"layers.0.{name}.weight": w[f"layers.0.{LLAMAS[name.split('.')[-1]]}.weight"]
        for name in ("attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "ffn_norm")
    }
    ours["layers.0.attention.wqkv.weight"] = torch.cat([w[f"layers.0.self_attn.{p}_proj.weight"] for p in "qkv"])
    given, count = given_for("t2i", target.cfg.tokens), CAPTION + ACCEPTED
    assert given.start is not None
    features = torch.randn(ROWS, count, DIM)
    codes = given.tokens[:, : ACCEPTED + 1 + CHAIN]
    ids = torch.cat([torch.full((ROWS, CAPTION - 1), 3), codes], dim=1)  # what stands for the prefix is not looked at
    found = guesses(draft, target, ids, features, target.condition(given.condition), given.start)
    for row in range(ROWS):
        embedded = w["embed_tokens.weight"][torch.cat([torch.zeros(CAPTION - 1, dtype=torch.int64), codes[row]])]
        known = features[row]
        for end in range(count, count + CHAIN + 1):
            x = torch.cat([embedded[:end], known], dim=-1) @ w["fc.weight"].T + w["fc.bias"]
            x = layer(x, ours, "layers.0.", 0, CAPTION, first=1, eps=None)
            mine = found[row, :count] if end == count else found[row, end - 1 : end]
            assert relative(mine, x[-len(mine) :]) < TOLERANCE
            known = torch.cat([known, x[-1:]])


@torch.no_grad()
def test_what_heads_for_llamagen_see_of_padding() -> None:
    """LANTERN's target runs in bfloat16, where its mask lets padding see padding: as if it had no mask there."""
    target = random_target(CONFIGS["llamagen-t2i"])
    width = target.cfg.prefix
    prefix = target.condition(torch.randn(2, width, target.cfg.condition_size[1]))
    ids, pos = torch.zeros(2, width, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    seen = [target.step(ids, pos, prefix, target.caches(2, width), start)[1] for start in (torch.tensor([4, 0]), None)]
    assert relative(seen[0][0, :4], seen[1][0, :4]) < 1e-6
    assert relative(seen[0][1], seen[1][1]) < 1e-6
    assert relative(seen[0][0, 4:], seen[1][0, 4:]) > 0.1


def chameleon_layer(x: Tensor, w: State, heads: int, eps: float) -> Tensor:
    """One layer of Chameleon's over x [S, C]: norms of each head before RoPE, halves turned, positions from 0."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w[f"layers.0.{name}.weight"]

    def each(name: str, h: int) -> Tensor:
        mine = slice(h * size, (h + 1) * size)
        z = (y @ w[f"layers.0.self_attn.{name}_proj.weight"].T)[:, mine]
        if name == "v":
            return z
        mean, spread = z.mean(-1, keepdim=True), z.var(-1, keepdim=True, unbiased=False)
        z = (z - mean) / torch.sqrt(spread + 1e-5) * w[f"layers.0.self_attn.{name}_norm.weight"][h]
        z = (z + w[f"layers.0.self_attn.{name}_norm.bias"][h]).double()
        half = torch.complex(z[:, : size // 2], z[:, size // 2 :])
        turned = half * torch.exp(1j * torch.arange(len(x)).double()[:, None] * speeds)
        return torch.cat([turned.real, turned.imag], dim=-1).float()

    size = x.shape[1] // heads
    speeds = 10000.0 ** (-2 * torch.arange(size // 2).double() / size)
    y, future = norm(x, "input_layernorm"), torch.ones(len(x), len(x)).triu(1) > 0
    out = []
    for h in range(heads):
        scores = each("q", h) @ each("k", h).T / math.sqrt(size)
        out.append(torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ each("v", h))
    x = x + torch.cat(out, dim=-1) @ w["layers.0.self_attn.o_proj.weight"].T
    y = norm(x, "post_attention_layernorm")
    gate, up = (y @ w[f"layers.0.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    return x + (gate * torch.sigmoid(gate) * up) @ w["layers.0.mlp.down_proj.weight"].T


@pytest.mark.parametrize(("kin", "vocab"), [(AnoleConfig, 8192), (LuminaConfig, 8194)])
@torch.no_grad()
def test_heads_for_chameleons_kin(kin: type[AnoleConfig | LuminaConfig], vocab: int, tmp_path: Path) -> None:
    """Anole's: a norm before attention, qk-norm, halves, eps 1e-5, rows of their own length. Their table is frozen: the
    target's own is read in its place."""
    w = head(WIDE, 4, TEXT, chameleons=True)
    target = random_target(kin(vocab=vocab, dim=WIDE, layers=1, heads=4, ffn=96, prefix=WIDTH, text=TEXT, grid=5))
    draft = load_draft(converted(w, tmp_path, rms_norm_eps=1e-5), target)
    assert draft.cfg == EagleConfig(WIDE, 4, FFN, 1e-5, pairs="half", input_norm=True, qk_norm=True)
    text, start, count = torch.randint(0, TEXT, (ROWS, WIDTH)), torch.tensor([0, 3, WIDTH - 2]), WIDTH + ACCEPTED
    codes, features = torch.randint(0, 8192, (ROWS, ACCEPTED + 1 + CHAIN)), torch.randn(ROWS, count, WIDE)
    ids = torch.cat([torch.zeros(ROWS, WIDTH - 1, dtype=torch.int64), codes], dim=1)
    found = guesses(draft, target, ids, features, target.condition(text), start)
    for row in range(ROWS):
        begin, known = int(start[row]), features[row, int(start[row]) :]
        embedded = torch.cat([target.condition(text)[row, 1:], target.tok_embeddings(codes[row])])[begin:]
        for end in range(count, count + CHAIN + 1):
            x = torch.cat([embedded[: end - begin], known], dim=-1) @ w["fc.weight"].T + w["fc.bias"]
            x = chameleon_layer(x, w, 4, 1e-5)
            mine = found[row, begin:count] if end == count else found[row, end - 1 : end]
            assert relative(mine, x[-len(mine) :]) < TOLERANCE
            known = torch.cat([known, x[-1:]])


def llamas_names(state: State) -> State:
    """LlamaGen's weights as LANTERN publishes them: in Llama's names, for Hugging Face's loaders."""
    out: State = {}
    for name, value in state.items():
        stem, _, kind = name.removesuffix(".weight").rpartition(".")
        if kind == "wqkv":
            at = stem.removesuffix("attention") + "self_attn."
            out |= {f"model.{at}{p}_proj.weight": part.clone() for p, part in zip("qkv", value.split(DIM), strict=True)}
        elif stem.startswith("layers"):
            layers, number, *_ = stem.split(".")
            out[f"model.{layers}.{number}.{LLAMAS[kind]}.weight"] = value
        elif name != "freqs_cis":
            theirs = {"tok_embeddings": "model.embed_tokens.weight", "output": "lm_head.weight"}
            out[theirs.get(kind, f"model.{name}")] = value
    return out


def test_llamagen_in_llamas_names(tmp_path: Path) -> None:
    """The same file comes out; what a config.json says of the image is believed, and nothing else."""
    state, folder = checkpoint("t2i"), tmp_path / "published"
    torch.save(state, tmp_path / "original.pt")
    folder.mkdir()
    torch.save(llamas_names(state), folder / "pytorch_model.bin")
    config = {"num_attention_heads": HEADS, "block_size": 256, "rms_norm_eps": 1e-5, "rope_base": 10000}
    (folder / "config.json").write_text(json.dumps(config))
    wanted = load_target(
        convert(tmp_path / "original.pt", tmp_path / "a", "llamagen-t2i", ConvertOptions(256, HEADS)).path
    )
    for family, size in (("llamagen-t2i", None), (None, 256)):
        done = convert(folder, tmp_path / f"b-{family}", family, ConvertOptions(size))
        found = load_target(done.path)
        assert (done.family, done.dropped, found.cfg) == ("llamagen-t2i", 0, wanted.cfg)
        assert all(torch.equal(v, wanted.state_dict()[k]) for k, v in found.state_dict().items())
    with pytest.raises(UserError, match=r"--size: expected 256, as config\.json's block_size says, found 512"):
        convert(folder, tmp_path / "c", options=ConvertOptions(512))
    torch.save(llamas_names(state) | {"extra": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="extra: expected no such tensor"):
        convert(folder, tmp_path / "c")

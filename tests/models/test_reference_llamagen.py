"""LlamaGen of a class and of a caption against a second implementation, written here from facts of the public code.

It reads whole sequences, row by row, with complex numbers for RoPE and a loop over heads, from a published checkpoint's
names; nothing of `coolsd_rt.models` is in it. Ours gets the same checkpoint through `convert`.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.load import load_target
from tests.models.family_cases import CAPACITY, ROWS, Image, eager, relative, stepped

TOLERANCE = 1e-4
DIM, HEADS, LAYERS, FFN, VOCAB, GRID, TEXT, CAPTION = 48, 3, 2, 64, 40, 16, 20, 120
State = dict[str, Tensor]


def checkpoint(kind: str) -> State:
    """Random weights under LlamaGen's published names."""
    torch.manual_seed(6)
    shapes = {"tok_embeddings.weight": (VOCAB, DIM), "norm.weight": (DIM,), "output.weight": (VOCAB, DIM)}
    for i in range(LAYERS):
        at = f"layers.{i}."
        shapes |= {
            f"{at}attention.wqkv.weight": (3 * DIM, DIM), f"{at}attention.wo.weight": (DIM, DIM),
            f"{at}feed_forward.w1.weight": (FFN, DIM), f"{at}feed_forward.w3.weight": (FFN, DIM),
            f"{at}feed_forward.w2.weight": (DIM, FFN), f"{at}attention_norm.weight": (DIM,),
            f"{at}ffn_norm.weight": (DIM,),
        }  # fmt: skip
    if kind == "c2i":
        shapes["cls_embedding.embedding_table.weight"] = (11, DIM)
    else:
        shapes |= {
            "cls_embedding.cap_proj.fc1.weight": (DIM, TEXT), "cls_embedding.cap_proj.fc2.weight": (DIM, DIM),
            "cls_embedding.uncond_embedding": (CAPTION, TEXT),
        }  # fmt: skip
    state = {}
    for name, shape in shapes.items():
        wide = torch.randn(shape) * (1.0 if "embed" in name or name == "output.weight" else 1.5 / shape[-1] ** 0.5)
        state[name] = torch.rand(shape) + 0.5 if len(shape) == 1 else wide
    return state | {"freqs_cis": torch.zeros(4, 2)}


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def _angles(position: int, prefix: int, size: int) -> Tensor:
    """complex [size / 2]: nothing at all for the prefix, the cell's row and column behind it."""
    if position < prefix:
        return torch.zeros(size // 2, dtype=torch.complex128)
    row, column = divmod(position - prefix, GRID)
    quarter = size // 4
    speeds = [10000.0 ** (-(2.0 * i) / (size // 2)) for i in range(quarter)]
    return torch.tensor(
        [complex(math.cos(a), math.sin(a)) for a in [row * s for s in speeds] + [column * s for s in speeds]],
        dtype=torch.complex128,
    )


def _turned(x: Tensor, first: int, prefix: int) -> Tensor:
    """Neighbouring numbers of x [S, size] as one complex number, times its angle."""
    z = torch.view_as_complex(x.double().reshape(len(x), -1, 2).contiguous())
    spin = torch.stack([_angles(first + i, prefix, x.shape[1]) for i in range(len(x))])
    return torch.view_as_real(z * spin).flatten(1).float()


def layer(x: Tensor, w: State, at: str, start: int, prefix: int, first: int = 0, eps: float | None = 1e-5) -> Tensor:
    """One layer over x [S, DIM] of one row. eps None: no norm before attention (an EAGLE head's)."""
    size, count = DIM // HEADS, len(x)
    y = x if eps is None else _norm(x, w[f"{at}attention_norm.weight"], eps)
    q, k, v = (y @ part.T for part in w[f"{at}attention.wqkv.weight"].split(DIM))
    seen = torch.tensor([[j <= i and (j >= start or j == i) for j in range(count)] for i in range(count)])
    heads = []
    for h in range(HEADS):
        mine = slice(h * size, (h + 1) * size)
        scores = _turned(q[:, mine], first, prefix) @ _turned(k[:, mine], first, prefix).T / math.sqrt(size)
        heads.append(torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1) @ v[:, mine])
    x = x + torch.cat(heads, dim=-1) @ w[f"{at}attention.wo.weight"].T
    y = _norm(x, w[f"{at}ffn_norm.weight"], 1e-5 if eps else 1e-6)
    gate = y @ w[f"{at}feed_forward.w1.weight"].T
    up = y @ w[f"{at}feed_forward.w3.weight"].T
    return x + (gate * torch.sigmoid(gate) * up) @ w[f"{at}feed_forward.w2.weight"].T


def prefix_of(w: State, condition: Tensor) -> Tensor:
    if not condition.is_floating_point():
        return w["cls_embedding.embedding_table.weight"][condition]
    y = condition @ w["cls_embedding.cap_proj.fc1.weight"].T
    y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return y @ w["cls_embedding.cap_proj.fc2.weight"].T


def features_of(w: State, condition: Tensor, codes: Tensor, start: int) -> Tensor:
    """Hidden states after the final norm, [W + codes, DIM], of one row."""
    x = torch.cat([prefix_of(w, condition), w["tok_embeddings.weight"][codes]])
    for i in range(LAYERS):
        x = layer(x, w, f"layers.{i}.", start, len(condition))
    return _norm(x, w["norm.weight"], 1e-5)


def given_for(kind: str, cells: int) -> Image:
    torch.manual_seed(7)
    tokens = torch.randint(0, VOCAB, (ROWS, cells))
    if kind == "c2i":
        return Image(torch.tensor([[3], [10], [0]]), tokens, None)
    start = torch.tensor([0, 50, CAPTION - 1])
    text = torch.randn(ROWS, CAPTION, TEXT)
    return Image(text * (torch.arange(CAPTION) >= start[:, None])[..., None], tokens, start)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
@pytest.mark.parametrize("kind", ["c2i", "t2i"])
@torch.no_grad()
def test_llamagen(kind: str, wrapper: str | None, tmp_path: Path) -> None:
    state = checkpoint(kind)
    torch.save(state if wrapper is None else {wrapper: state, "steps": 7}, tmp_path / "published.pt")
    done = convert(
        tmp_path / "published.pt", tmp_path / "ours.safetensors", options=ConvertOptions(size=256, heads=HEADS)
    )
    assert (done.family, done.dropped) == (f"llamagen-{kind}", 1)
    target = load_target(done.path)
    assert target.cfg.layout.rows == GRID
    if wrapper != "model":  # the numbers are compared once
        return
    given = given_for(kind, target.cfg.tokens)
    starts = [0] * ROWS if given.start is None else given.start.tolist()
    features = [features_of(state, given.condition[r], given.tokens[r, :30], starts[r]) for r in range(ROWS)]
    for row, at, logits, seen in stepped(target.cfg, given.tokens, eager(target, given, CAPACITY + CAPTION)):
        begin = max(at, starts[row])
        wanted = features[row][begin : at + len(seen)]
        assert relative(seen[begin - at :], wanted) < TOLERANCE
        assert relative(logits[begin - at :], wanted @ state["output.weight"].T) < TOLERANCE

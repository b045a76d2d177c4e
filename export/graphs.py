"""The graphs of an engine as torch modules: condition, target, draft and image, built from the eager networks.

Inputs and outputs follow `coolsd_rt.contract`. Does not know how a module becomes a file (see `torch_onnx`), nor the
fused draft (see `propose`).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.export.blocks import Angles, At, Caches, Matrix, Norm, Stack
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.llamagen import LlamaGen, WordEmbedder
from coolsd_rt.models.vq import VQTokenizer


class Embedding(nn.Module):
    """Prefix rows below W, the codes' table from W on."""

    def __init__(self, target: LlamaGen) -> None:
        super().__init__()
        self.prefix, self.table = target.cfg.prefix, target.tok_embeddings

    def codes(self, ids: Tensor) -> Tensor:
        """Embeddings of image tokens int64 [...]."""
        return cast(Tensor, self.table(ids))

    def forward(self, ids: Tensor, where: Tensor, prefix: Tensor) -> Tensor:
        """ids, positions int64 [R, S], prefix [R, W, C] -> [R, S, C]."""
        row = torch.arange(ids.shape[0])[:, None] * self.prefix
        before = F.embedding(row + where.clamp(max=self.prefix - 1), prefix.flatten(0, 1))
        return torch.where((where < self.prefix).unsqueeze(-1), before, self.codes(ids))


def positions(pos: Tensor, size: int) -> Tensor:
    """int64 [R, S]: pos, pos + 1, ..."""
    return pos[:, None] + torch.arange(size)


class ConditionGraph(nn.Module):
    """words -> prefix: the target's, and behind it that of a draft model of its own."""

    def __init__(self, *sources: WordEmbedder) -> None:
        super().__init__()
        self.sources = nn.ModuleList(sources)

    def forward(self, words: Tensor) -> Tensor:
        rows = [cast(Tensor, source(words)) for source in self.sources]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)


class TargetGraph(nn.Module):
    """ids, pos, prefix, caches (, start) -> logits, features, caches."""

    def __init__(self, target: LlamaGen) -> None:
        super().__init__()
        self.embed, self.angles = Embedding(target), Angles(target.rope)
        self.stack = Stack(list(target.layers), self.angles)
        self.norm, self.head = Norm(target.norm), Matrix(target.output.weight)

    def forward(
        self, ids: Tensor, pos: Tensor, prefix: Tensor, caches: Caches, start: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        size = ids.shape[1]
        x = self.embed(ids, positions(pos, size), prefix)
        x, caches = self.stack(x, self.angles.at(pos, size, caches[0].shape[2], start=start), caches)
        features = self.norm(x)
        return self.head(features).float(), features, *caches


class EagleCore(nn.Module):
    """What the single draft step and the fused one share: fc, layers, and the target's embedding, angles and head."""

    def __init__(self, draft: Eagle, target: LlamaGen) -> None:
        super().__init__()
        self.embed, self.angles = Embedding(target), Angles(target.rope)
        self.fc, self.bias = Matrix(draft.fc.weight), nn.Parameter(draft.fc.bias.detach(), requires_grad=False)
        self.stack, self.head = Stack(list(draft.layers), self.angles), Matrix(target.output.weight)

    def pair(self, embedded: Tensor, features: Tensor) -> Tensor:
        """fc on cat(embedding of token t + 1, feature t)."""
        return cast(Tensor, self.fc(torch.cat([embedded, features], dim=-1))) + self.bias

    def step(
        self, ids: Tensor, features: Tensor, pos: Tensor, prefix: Tensor, caches: Caches, start: Tensor | None
    ) -> tuple[Tensor, Caches]:
        """Guessed features [R, S, C] of positions pos + 1 + s."""
        size = ids.shape[1]
        x = self.pair(self.embed(ids, positions(pos, size) + 1, prefix), features)
        at: At = self.angles.at(pos, size, caches[0].shape[2], shift=1, start=start)
        return cast("tuple[Tensor, Caches]", self.stack(x, at, caches))


class DraftGraph(nn.Module):
    """ids, features_in, pos, prefix, caches (, start) -> logits, features, caches."""

    def __init__(self, draft: Eagle, target: LlamaGen) -> None:
        super().__init__()
        self.core = EagleCore(draft, target)

    def forward(
        self, ids: Tensor, features_in: Tensor, pos: Tensor, prefix: Tensor, caches: Caches,
        start: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        x, caches = self.core.step(ids, features_in, pos, prefix, caches, start)
        return self.core.head(x).float(), x, *caches


class ImageGraph(nn.Module):
    """codes -> RGB bytes, rounded to the nearest level."""

    def __init__(self, tokenizer: VQTokenizer) -> None:
        super().__init__()
        self.table = nn.Parameter(tokenizer.quantize.codes.detach(), requires_grad=False)
        self.post_quant_conv, self.decoder = tokenizer.post_quant_conv, tokenizer.decoder

    def forward(self, codes: Tensor) -> Tensor:
        side = int(codes.shape[1] ** 0.5)
        z = F.embedding(codes, self.table).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        pixels: Tensor = self.decoder(self.post_quant_conv(z)).clamp(-1, 1)
        return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)

"""The graphs of an engine as torch modules: condition, target, draft and image, built from the eager networks.

Knows the networks; inputs and outputs follow `coolsd_rt.contract`. Does not know how a module becomes a file (see
`torch_onnx`), nor the graph of all draft steps (see `propose`).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.export.blocks import Angles, At, Caches, Matrix, RmsNorm, Stack
from coolsd_rt.models.decoder import Decoder, MlpHead, closed, spread
from coolsd_rt.models.eagle import Eagle, first_seen, seen_prefix
from coolsd_rt.models.embedders import Embedder, SharedEmbedder
from coolsd_rt.models.layers import Tree, places
from coolsd_rt.models.layout import Layout
from coolsd_rt.models.vq import VQTokenizer


class Embedding(nn.Module):
    """Embeddings of positions: rows of the prefix below W, the table of codes from W on."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def codes(self, ids: Tensor) -> Tensor:
        """Return the embeddings of image tokens int64 [...]."""
        return cast(Tensor, self.table(ids))

    def forward(self, ids: Tensor, where: Tensor, prefix: Tensor) -> Tensor:
        """Embed ids and their positions `where`, both int64 [R, S], with the prefix [R, W, C]; returns [R, S, C]."""
        width = prefix.shape[1]  # a constant of the graph, unless its contract has a prefix of any length
        row = torch.arange(ids.shape[0])[:, None] * width
        before = F.embedding(row + where.clamp(max=width - 1), prefix.flatten(0, 1))
        return torch.where((where < width).unsqueeze(-1), before, self.codes(ids))


class ConditionGraph(nn.Module):
    """Condition (word ids, a class, text tokens or text features) -> prefix.

    With a draft model that has its own embedder, its prefix follows the target's in the last dimension.
    """

    def __init__(self, *sources: Embedder) -> None:
        super().__init__()
        # A graph has its own copy of a table that the target's graph has too.
        self.sources = nn.ModuleList([s.table if isinstance(s, SharedEmbedder) else s for s in sources])

    def forward(self, condition: Tensor) -> Tensor:
        """Embed the condition with each embedder and join the results in the last dimension."""
        rows = [cast(Tensor, source(condition)) for source in self.sources]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)


class Head(nn.Module):
    """Features to logits of all ids.

    linear: whether the head is a linear map, so that it may be applied to a weighted sum of features.
    draft: an EAGLE head, which may draft a part of the vocabulary alone; None: the target's own head.
    """

    slots: Tensor | None

    def __init__(self, target: Decoder, draft: Eagle | None = None) -> None:
        super().__init__()
        head = target.output
        self.vocab, self.linear = target.cfg.vocab, not isinstance(head, MlpHead)
        if isinstance(head, MlpHead):
            self.last = Matrix(head.fc2.weight)
        else:
            self.last = Matrix(head.weight if draft is None else draft.head_rows(target))
        self.register_buffer("slots", None if draft is None else draft.slots(self.vocab))
        if isinstance(head, MlpHead):
            self.first = Matrix(head.fc1.weight)
            self.biases = nn.ParameterList([nn.Parameter(m.bias.detach(), False) for m in (head.fc1, head.fc2)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of features x [R, S, C], float32 [R, S, V]."""
        if not self.linear:
            return closed((self.last(F.gelu(self.first(x) + self.biases[0])) + self.biases[1]).float(), self.vocab)
        logits = self.last(x).float()
        return closed(logits, self.vocab) if self.slots is None else spread(logits, self.slots)


class TargetCore(nn.Module):
    """The parts of the target's step, which the graphs with and without a tree share."""

    def __init__(self, target: Decoder) -> None:
        super().__init__()
        cfg = target.cfg
        self.embed = Embedding(target.tok_embeddings)
        self.angles = Angles(target.rope, cfg.layer.pairs, cfg.rope.from_start)
        self.stack = Stack(list(target.layers), self.angles)
        self.norm, self.head = RmsNorm(target.norm), Head(target)

    def step(
        self, ids: Tensor, pos: Tensor, prefix: Tensor, caches: Caches, start: Tensor | None, tree: Tree | None = None
    ) -> tuple[Tensor, ...]:
        """Step over ids int64 [R, S] from pos int64 [R] on.

        Returns logits [R, S, V], features [R, S, C] and the caches.
        """
        size = ids.shape[1]
        x = self.embed(ids, places(pos, size, tree), prefix)
        x, caches = self.stack(x, self.angles.at(pos, size, caches[0].shape[2], start=start, tree=tree), caches)
        features = self.norm(x)
        return self.head(features), features, *caches


class TargetGraph(TargetCore):
    """One step of the target: ids, pos, prefix, caches (, start) -> logits, features, caches."""

    def forward(
        self, ids: Tensor, pos: Tensor, prefix: Tensor, caches: Caches, start: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Step along a chain, as `TargetCore.step`."""
        return self.step(ids, pos, prefix, caches, start)


class TreeTargetGraph(TargetCore):
    """One step of the target on a tree: ids, pos, depth, seen, prefix, caches (, start) -> as `TargetGraph`."""

    def forward(
        self,
        ids: Tensor,
        pos: Tensor,
        depth: Tensor,
        seen: Tensor,
        prefix: Tensor,
        caches: Caches,
        start: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Step along the tree of depth int64 [R, S] and seen bool [R, S, S], as `TargetCore.step`."""
        return self.step(ids, pos, prefix, caches, start, Tree(depth, seen))


class EagleCore(nn.Module):
    """The parts that the single draft step and the graph `propose` share.

    These are fc, layers, the embedding, and the target's RoPE angles and head.
    """

    def __init__(self, draft: Eagle, target: Decoder) -> None:
        super().__init__()
        self.cfg = draft.cfg
        self.embed = Embedding(draft.table(target))
        self.angles = Angles(target.rope, draft.cfg.pairs, target.cfg.rope.from_start)
        self.fc, self.bias = Matrix(draft.fc.weight), nn.Parameter(draft.fc.bias.detach(), requires_grad=False)
        self.stack, self.head = Stack(list(draft.layers), self.angles), Head(target, draft)

    def pair(self, embedded: Tensor, features: Tensor) -> Tensor:
        """Apply fc to cat(embedding of token t + 1, feature t)."""
        return cast(Tensor, self.fc(torch.cat([embedded, features], dim=-1))) + self.bias

    def step(
        self,
        ids: Tensor,
        features: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Caches,
        start: Tensor | None,
        tree: Tree | None = None,
    ) -> tuple[Tensor, Caches]:
        """Return the predicted features [R, S, C] of positions pos + 1 + s, and the updated caches."""
        size, prefix = ids.shape[1], seen_prefix(self.cfg, prefix, self.embed.table)
        x = self.pair(self.embed(ids, places(pos, size, tree) + 1, prefix), features)
        at: At = self.angles.at(pos, size, caches[0].shape[2], 1, first_seen(self.cfg, start), tree)
        return cast("tuple[Tensor, Caches]", self.stack(x, at, caches))


class DraftStep(nn.Module):
    """The EAGLE head's step, which the graphs with and without a tree share."""

    def __init__(self, draft: Eagle, target: Decoder) -> None:
        super().__init__()
        self.core = EagleCore(draft, target)

    def step(
        self,
        ids: Tensor,
        features_in: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Caches,
        start: Tensor | None,
        tree: Tree | None = None,
    ) -> tuple[Tensor, ...]:
        """Step over ids int64 [R, S] and features_in [R, S, C].

        Returns logits [R, S, V], features [R, S, C] and the caches.
        """
        x, caches = self.core.step(ids, features_in, pos, prefix, caches, start, tree)
        return self.core.head(x), x, *caches


class DraftGraph(DraftStep):
    """One step of the EAGLE head: ids, features_in, pos, prefix, caches (, start) -> logits, features, caches."""

    def forward(
        self,
        ids: Tensor,
        features_in: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Caches,
        start: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Step along a chain, as `DraftStep.step`."""
        return self.step(ids, features_in, pos, prefix, caches, start)


class TreeDraftGraph(DraftStep):
    """One step of the EAGLE head on a tree: ids, features_in, pos, depth, seen, prefix, caches (, start)."""

    def forward(
        self,
        ids: Tensor,
        features_in: Tensor,
        pos: Tensor,
        depth: Tensor,
        seen: Tensor,
        prefix: Tensor,
        caches: Caches,
        start: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Step along the tree of depth int64 [R, S] and seen bool [R, S, S], as `DraftStep.step`."""
        return self.step(ids, features_in, pos, prefix, caches, start, Tree(depth, seen))


class ImageGraph(nn.Module):
    """Codes -> RGB bytes, rounded to the nearest level.

    layout: the order of an image's tokens, which says where its codes are; None: all tokens are codes.
    """

    code_positions: Tensor

    def __init__(self, tokenizer: VQTokenizer, layout: Layout | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(tokenizer.quantize.codes.detach(), requires_grad=False)
        self.post_quant_conv, self.decoder = tokenizer.post_quant_conv, tokenizer.decoder
        self.plain = layout is None or layout.plain
        if layout is not None and not layout.plain:
            self.register_buffer("code_positions", torch.from_numpy(layout.code_positions))

    def forward(self, codes: Tensor) -> Tensor:
        """Decode codes int64 [M, tokens] to pixels uint8 [M, side, side, 3]."""
        codes = codes if self.plain else codes[:, self.code_positions]
        side = int(codes.shape[1] ** 0.5)
        z = F.embedding(codes, self.table).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        pixels: Tensor = self.decoder(self.post_quant_conv(z)).clamp(-1, 1)
        return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)

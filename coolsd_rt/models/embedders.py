"""Map a condition to the prefix that a decoder reads: words, a class, a text encoder's features, or text tokens.

Knows tables and one MLP. Does not know text: `coolsd_rt.prompts` turns a prompt into ids or features. Parameter names
are those of the published LlamaGen checkpoints. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.config import Condition, DecoderConfig


class WordSizes(Protocol):
    """What a table of words needs of a config: a target of codes has it, and one of continuous tokens."""

    @property
    def dim(self) -> int:
        """Width C of the decoder."""

    @property
    def condition_size(self) -> tuple[int, int]:
        """Words, and the width of their embeddings."""


class Mlp(nn.ModuleDict):
    """LlamaGen's caption MLP: two matrices, tanh-GELU, no biases. [..., I] -> [..., C]."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__({"fc1": nn.Linear(width, dim, bias=False), "fc2": nn.Linear(dim, dim, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., I] to [..., C]."""
        y: Tensor = self["fc2"](F.gelu(self["fc1"](x), approximate="tanh"))
        return y


class WordEmbedder(nn.Module):
    """Word ids to prefix embeddings: a lookup, then the MLP."""

    def __init__(self, cfg: WordSizes) -> None:
        super().__init__()
        words, width = cfg.condition_size
        self.embedding = nn.Embedding(words, width)
        self.cap_proj = Mlp(width, cfg.dim)

    def forward(self, words: Tensor) -> Tensor:
        """Map word ids int64 [R, W] to float [R, W, C]."""
        y: Tensor = self.cap_proj(self.embedding(words))
        return y


class ClassEmbedder(nn.Module):
    """A class id to the one prefix embedding; the last row of the table is the unconditional one."""

    def __init__(self, cfg: DecoderConfig) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(*cfg.condition_size)

    def forward(self, classes: Tensor) -> Tensor:
        """Map class ids int64 [R, 1] to float [R, 1, C]."""
        y: Tensor = self.embedding_table(classes)
        return y


class TextEmbedder(nn.Module):
    """Features of a text encoder to prefix embeddings.

    `uncond_embedding` [W, I] takes the place of the features in the unconditional row.
    """

    def __init__(self, cfg: DecoderConfig) -> None:
        super().__init__()
        _, width = cfg.condition_size
        self.cap_proj = Mlp(width, cfg.dim)
        self.uncond_embedding = nn.Parameter(torch.randn(cfg.prefix, width) / width**0.5)

    def forward(self, text: Tensor) -> Tensor:
        """Map features float [R, W, I] to [R, W, C], of the weights' dtype."""
        y: Tensor = self.cap_proj(text.to(self.uncond_embedding.dtype))
        return y


class TokenEmbedder(nn.Module):
    """Ids of the model's text tokens to prefix embeddings, by its full table."""

    def __init__(self, cfg: DecoderConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*cfg.condition_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids int64 [R, W] to float [R, W, C]."""
        y: Tensor = self.embedding(ids)
        return y


class SharedEmbedder(nn.Module):
    """Ids of a prompt to prefix embeddings, by a table of another module, which alone has the weights."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self._table = (table,)  # a tuple: a module here would register its weights a second time

    @property
    def table(self) -> nn.Embedding:
        """The table, as its owner has it now."""
        return self._table[0]

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids int64 [R, W] to float [R, W, C]."""
        y: Tensor = self.table(ids)
        return y


Embedder = WordEmbedder | ClassEmbedder | TextEmbedder | TokenEmbedder | SharedEmbedder
_KINDS: dict[Condition, type[WordEmbedder | ClassEmbedder | TextEmbedder | TokenEmbedder]] = {
    "words": WordEmbedder,
    "class": ClassEmbedder,
    "text": TextEmbedder,
    "ids": TokenEmbedder,
}


def make_embedder(cfg: DecoderConfig) -> Embedder:
    """Return the embedder for a config's kind of condition."""
    return _KINDS[cfg.condition](cfg)

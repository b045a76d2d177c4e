"""Llama: a language model that continues a text, such as SmolLM2.

Its tokens are those of its text tokenizer, in the prompt and behind it, so that one table embeds both; with `tied` the
same table is the head. An end token closes a text; which tokens do is a spec's matter. Knows sizes and facts. Does not
know the network, `coolsd_rt.models.decoder`. Source: Llama (Touvron et al., 2023), transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coolsd_rt.models.config import Fault
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.families.prompted import TokensConfig
from coolsd_rt.models.layout import Layout

PROMPT, LENGTH = 512, 1024  # default numbers of positions of a prompt, and of tokens behind it


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(TokensConfig):
    """Config of a language model.

    prefix: positions of a prompt. length: tokens behind it at most. tied: the head is the table of embeddings.
    context: positions that the model was trained for.
    """

    prefix: int = PROMPT
    length: int = LENGTH
    context: int = PROMPT + LENGTH
    tied: bool = False

    @property
    def layout(self) -> Layout:
        """The order of its tokens: one row, of which a text may fill less."""
        return Layout(self.vocab, 1, self.length)

    @property
    def condition_size(self) -> tuple[int, int]:
        """Rows of the table of embeddings, and the model's width."""
        return self.vocab, self.dim

    @property
    def one_table(self) -> bool:
        """Prompts are of the same tokens as what follows them."""
        return True

    @property
    def tied_head(self) -> bool:
        """Whether the head is the table of embeddings."""
        return self.tied

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.prefix + self.length > self.context:
            expected = f"a prefix and a length within the {self.context} positions of the model"
            yield Fault("context", expected, f"{self.prefix} + {self.length}")
        yield from super().faults()


_135M = {"dim": 576, "layers": 30, "heads": 9, "ffn": 1536}
_360M = {"dim": 960, "layers": 32, "heads": 15, "ffn": 2560}
_1_7B = {"dim": 2048, "layers": 24, "heads": 32, "ffn": 8192}

LLAMA = Family(
    "llama", LlamaConfig, cell=0, sizes=(), models={"SmolLM2-135M": _135M, "SmolLM2-360M": _360M, "SmolLM2-1.7B": _1_7B}
)

"""The spec's `target`, `draft` and `image` sections: the models and their files.

Knows keys, ranges and defaults. Does not know the contents of a weights file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    model_serializer,
    model_validator,
)

from coolsd_rt import limits
from coolsd_rt.spec.section import RelativePath, Section, Within, complaint

FamilyName = Literal["llamagen", "llamagen-c2i", "llamagen-t2i", "lumina-mgpt", "anole", "janus-pro", "llama"]
"""`llamagen` is conditioned on words, `llamagen-c2i` on a class, `llamagen-t2i` on a caption's features."""


class Target(Section):
    """The target model, whose distribution is sampled."""

    model: FamilyName = Field(description="Model family of the target, as recorded in its weights file.")
    weights: RelativePath = Field(description="Safetensors file of the weights, relative to the spec's folder.")


_WEIGHTS = "Safetensors file of the weights, relative to the spec's folder."
DraftLength = Annotated[
    int,
    Within(limits.DRAFT_LENGTH),
    Field(description="Tokens proposed in a round (L). At least 1, at most the image's tokens. Build-time."),
]


def _length_or_tree(schema: dict[str, Any]) -> None:
    """Let the schema ask for a length only without a tree, whose depth is the length."""
    schema["required"].remove("length")
    schema["anyOf"] = [{"required": ["length"]}, {"required": ["tree"]}]


Widths = Annotated[tuple[Annotated[int, Within(limits.TREE_WIDTH)], ...], Strict(False), Field(min_length=1)]
"""Siblings below each node of the depth before; the first of the pending token."""


class EagleDraft(Section):
    """An EAGLE head on the target's features proposes tokens, in a chain or a static tree."""

    model_config = ConfigDict(json_schema_extra=_length_or_tree)

    model: Literal["eagle"] = Field(description="`eagle`: an EAGLE head.")
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength
    tree: Widths | None = Field(
        default=None,
        description="Draft a tree: siblings below each node of the depth before, as [4, 2, 1]. draft.length is its "
        "depth and may be left out. Whether there is a tree, and its depth, are build-time; the widths are run-time.",
    )

    @property
    def nodes(self) -> int:
        """Drafts of a round: the nodes of the tree, or the tokens of the chain."""
        count, level = 0, 1
        for width in self.tree or (1,) * self.length:
            level *= width
            count += level
        return count

    @model_validator(mode="before")
    @classmethod
    def _length_of_the_tree(cls, data: Any) -> Any:
        if isinstance(data, dict) and "length" not in data and isinstance(data.get("tree"), list | tuple):
            return {**data, "length": len(data["tree"])}
        return data

    @model_serializer(mode="wrap")
    def _without_no_tree(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `tree: null`, so that engines of before have today's fingerprint of their spec."""
        data: dict[str, Any] = handler(self)
        if data.get("tree") is None:
            data.pop("tree", None)
        return data


class ChainDraft(Section):
    """A draft that proposes a chain of tokens, never a tree."""

    @model_validator(mode="before")
    @classmethod
    def _no_tree(cls, data: Any) -> Any:
        if isinstance(data, dict) and "tree" in data:
            found = f"draft.tree with the draft {data.get('model')}"
            raise complaint("the draft eagle, which alone drafts trees", found, "leave draft.tree out")
        return data


class ModelDraft(ChainDraft):
    """A separate small model of the target's family proposes tokens. It has the same condition and image."""

    model: FamilyName = Field(description="Model family of the draft; the same as the target's.")
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength


class RowsDraft(ChainDraft):
    """A row head proposes the tokens to the end of a row in one step, from the row above and the last token (SSD)."""

    model: Literal["rows"] = Field(description="`rows`: a row head.")
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength


Coupling = Literal["maximal", "gumbel"]
"""How a Jacobi draft depends on that of the round before at its position."""


def _coupling(value: Any) -> Any:
    """Return the coupling of a spec of before: true was the only one there was, and false was none."""
    return {True: "maximal", False: None}[value] if isinstance(value, bool) else value


class JacobiDraft(ChainDraft):
    """No draft model: the target's distributions of the last round propose tokens (speculative Jacobi decoding)."""

    model: Literal["jacobi"] = Field(description="`jacobi`: Jacobi drafts.")
    length: DraftLength
    coupled: Annotated[Coupling | None, BeforeValidator(_coupling)] = Field(
        default=None,
        description="Let a draft agree with that of the round before where their laws do, instead of drawing it anew: "
        "`maximal` by a maximal coupling, `gumbel` by one noise for each position. Run-time.",
    )


class NgramDraft(ChainDraft):
    """No draft model: what followed the last tokens the time before is proposed again."""

    model: Literal["ngram"] = Field(description="`ngram`: n-gram lookup in the prompt and the decided tokens.")
    length: DraftLength
    longest: Annotated[int, Within(limits.NGRAM)] = Field(
        default=3, description="Number of last tokens that are looked up first. Run-time."
    )
    shortest: Annotated[int, Within(limits.NGRAM)] = Field(
        default=1,
        description="Fewest last tokens that are looked up; if they are new too, the round has no drafts. Run-time.",
    )


Draft = Annotated[EagleDraft | ModelDraft | RowsDraft | JacobiDraft | NgramDraft, Field(discriminator="model")]


class Image(Section):
    """The tokenizer that turns code ids into pixels."""

    tokenizer: Literal["vq"] = Field(description="Kind of image tokenizer.")
    weights: RelativePath = Field(description="Safetensors file of the weights, relative to the spec's folder.")
    neighbours: Annotated[int, Within(limits.NEIGHBOURS)] = Field(
        default=64, description="Number of nearest codes stored per code for the lantern rules. Build-time."
    )


class Text(Section):
    """The output of a language model: text, which ends at a token."""

    length: Annotated[int, Within(limits.TEXT_TOKENS)] = Field(
        default=1024, description="Most tokens of a text (N), as in the target's weights file. Build-time."
    )
    end: Annotated[tuple[Annotated[str, Strict(), Field(min_length=1)], ...], Strict(False)] = Field(
        default=(), description="Tokens of the tokenizer that complete a text; without one it has `length` tokens."
    )
    neighbours: Annotated[int, Within(limits.TEXT_NEIGHBOURS)] = Field(
        default=0,
        description="Number of tokens with the nearest embeddings stored per token for the lantern rules; 0 stores "
        "none. Build-time.",
    )

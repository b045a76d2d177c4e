"""The spec's `target`, `draft` and `image` sections: which models, and their files.

Knows keys, ranges and defaults. Does not know what is in a weights file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coolsd_rt import limits
from coolsd_rt.spec.section import RelativePath, Section, Within

FamilyName = Literal["llamagen", "llamagen-c2i", "llamagen-t2i", "lumina-mgpt", "anole", "janus-pro"]
"""`llamagen` reads words, `llamagen-c2i` a class, `llamagen-t2i` a caption's features."""


class Target(Section):
    """The model whose distribution is wanted."""

    model: FamilyName = Field(description="Family of the target, as its weights file says too.")
    weights: RelativePath = Field(description="Its safetensors file, relative to the spec's folder.")


_WEIGHTS = "Its safetensors file, relative to the spec's folder."
DraftLength = Annotated[
    int,
    Within(limits.DRAFT_LENGTH),
    Field(description="Tokens proposed in a round (L). At least 1, at most the image's tokens. Build-time."),
]


class EagleDraft(Section):
    """An EAGLE head on the target's features proposes tokens."""

    model: Literal["eagle"] = Field(description="`eagle`: an EAGLE head.")
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength


class ModelDraft(Section):
    """A small model of its own proposes tokens: another of the target's family, with the same words and image."""

    model: FamilyName = Field(description="Family of the draft: the target's own.")
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength


class JacobiDraft(Section):
    """No draft model: the target's own distributions of the last round propose tokens (speculative Jacobi decoding)."""

    model: Literal["jacobi"] = Field(description="`jacobi`: Jacobi drafts.")
    length: DraftLength
    coupled: bool = Field(
        default=False, description="Pass drafts on by a maximal coupling instead of drawing them again. Run-time."
    )


Draft = Annotated[EagleDraft | ModelDraft | JacobiDraft, Field(discriminator="model")]


class Image(Section):
    """The tokenizer that turns code ids into pixels."""

    tokenizer: Literal["vq"] = Field(description="Kind of image tokenizer.")
    weights: RelativePath = Field(description="Its safetensors file, relative to the spec's folder.")
    neighbours: Annotated[int, Within(limits.NEIGHBOURS)] = Field(
        default=64, description="Nearest codes of each code that may lend under the lantern rules. Build-time."
    )

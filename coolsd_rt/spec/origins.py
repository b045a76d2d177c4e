"""The spec's `sources` section: the published checkpoints that its files are made of.

No part of an engine: `coolsd-rt convert SPEC` reads it, a build never does. Knows keys and how a place is written. Does
not know the hub, or what is in a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from coolsd_rt import limits
from coolsd_rt.spec.section import Section, Within, complaint, relative

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<commit>[^:@]*))?(:(?P<inside>.+))?")
"""`org/name`, `org/name@COMMIT` and either with `:FILE` behind it. Without a commit it can be written, not fetched."""

_FILE = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors|json)")


def _place(value: str) -> str:
    match = on_hub(value)
    if not match:
        return relative(value)
    if match["commit"] is not None and not COMMIT.fullmatch(match["commit"]):
        raise complaint("a commit behind @, 40 hexadecimal digits", match["commit"], how_to_pin(match["repo"]))
    if match["inside"]:
        relative(match["inside"])
    return value


def on_hub(value: str) -> re.Match[str] | None:
    """The parts of a place on the hub; None for a path. `a/b.pt` is a path: a repository has no such ending."""
    return None if _FILE.fullmatch(value) and "@" not in value and ":" not in value else HUB.fullmatch(value)


def how_to_pin(repo: str) -> str:
    """What prints a repository's commit of today."""
    return f"git ls-remote https://huggingface.co/{repo} HEAD prints one"


def _digest(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise complaint("a SHA-256, 64 hexadecimal digits", value)
    return value


Place = Annotated[str, AfterValidator(_place)]
Digest = Annotated[str | None, AfterValidator(_digest)]
_AT = (
    "Where it is: `org/name@COMMIT:FILE` on the Hugging Face hub, `org/name@COMMIT` for a folder of shards, or a file "
    "relative to the spec's folder."
)


class Origin(Section):
    """A published checkpoint, and what it does not say of itself."""

    at: Place = Field(description=_AT)
    family: str | None = Field(default=None, description="What it is of. null: told by its tensors' names.")
    size: Annotated[int, Within(limits.PIXELS)] | None = Field(
        default=None, description="Pixels along one side of an image, where a family has several."
    )
    heads: Annotated[int, Within(limits.HEADS)] | None = Field(
        default=None, description="Attention heads, where no published size tells."
    )
    prefix: Annotated[int, Within(limits.PREFIX)] | None = Field(
        default=None, description="Positions for a prompt, where the family has a choice."
    )
    cell: Literal[8, 16] | None = Field(
        default=None, description="Pixels along one side of a code's cell: 8 for a target over VQ-8. null: 16."
    )
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = Field(
        default="keep", description="Type of the tensors written."
    )
    sha256: Digest = Field(default=None, description="Of the file, checked before it is read.")


class CopiedOrigin(Section):
    """A published file that is taken as it is."""

    at: Place = Field(description=_AT)
    sha256: Digest = Field(default=None, description="Of the file.")


class OriginsSection(Section):
    """Published checkpoints that the spec's files are made of (`coolsd-rt convert SPEC`). No part of an engine."""

    target: Origin | None = Field(default=None, description="What target.weights is made of.")
    draft: Origin | None = Field(default=None, description="What draft.weights is made of.")
    image: Origin | None = Field(default=None, description="What image.weights is made of.")
    tokenizer: CopiedOrigin | None = Field(default=None, description="What condition.tokenizer is a copy of.")


FILES: Mapping[str, str] = {
    "target": "target.weights",
    "draft": "draft.weights",
    "image": "image.weights",
    "tokenizer": "condition.tokenizer",
}
"""Keys of `sources` to the keys of the files that are made of them."""

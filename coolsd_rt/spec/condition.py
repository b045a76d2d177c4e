"""The spec's `condition` section: how a prompt becomes the prefix that the target reads. One class per kind.

Knows keys, ranges and defaults. Does not know tokenizers, text encoders, or whether a file exists.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from coolsd_rt import limits
from coolsd_rt.spec.section import RelativePath, Section, Within, complaint

LUMINA_STEP = 32
"""Pixels per step of Lumina-mGPT's image-size tokens."""

_REVISION = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_PLACES = ("prompt", "width", "height")


class WordsCondition(Section):
    """One embedding per word, from a closed vocabulary."""

    kind: Literal["words"] = Field(description="`words`: one embedding per word, from a closed vocabulary.")
    vocab: RelativePath = Field(description="JSON file of the vocabulary, relative to the spec's folder.")


class ClassCondition(Section):
    """The number of a class (LlamaGen c2i)."""

    kind: Literal["class"] = Field(description="`class`: the number of a class, or its label.")
    classes: Annotated[int, Within(limits.CLASSES)] = Field(
        default=1000,
        description="Number of classes that the target was trained on; the embedding after them is unconditional.",
    )
    labels: RelativePath | None = Field(
        default=None,
        description="File of labels that prompts may use: line n (from 0) holds the names of class n, with "
        "commas between them. Relative to the spec's folder. null: prompts are numbers.",
    )


class T5Condition(Section):
    """Features of a caption from a T5 encoder (LlamaGen t2i), computed when an image is drawn, or ahead of time."""

    kind: Literal["t5"] = Field(description="`t5`: features of a caption from a T5 encoder.")
    length: Annotated[int, Within(limits.T5_PREFIX)] = Field(
        default=120, description="Prefix positions (W); a caption with more tokens is refused."
    )
    encoder: str | None = Field(
        default=None, description="Hub id of encoder and tokenizer, such as google/flan-t5-xl. Requires `revision`."
    )
    revision: str | None = Field(
        default=None,
        validate_default=True,
        description="Commit of `encoder` on the hub, 40 hexadecimal digits: a branch or a tag may move.",
    )
    folder: RelativePath | None = Field(
        default=None,
        description="Folder of encoder and tokenizer as transformers saves them, instead of `encoder`. Relative to the "
        "spec's folder; it stays there and is not copied into an engine.",
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="Numeric precision of the encoder; LlamaGen was trained on bf16 features."
    )
    features: RelativePath | None = Field(
        default=None,
        validate_default=True,
        description="Safetensors file of precomputed features (coolsd-rt precompute), relative to "
        "the spec's folder. Captions that are not in the file are encoded by the encoder, if one is named.",
    )

    @field_validator("encoder")
    @classmethod
    def _id(cls, value: str | None) -> str | None:
        if value is not None and not _HUB_ID.fullmatch(value):
            raise complaint("a hub id, OWNER/NAME", value, "name a local folder in condition.folder")
        return value

    @field_validator("revision")
    @classmethod
    def _pinned(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "encoder" not in info.data:  # an error was reported already
            return value
        named = info.data["encoder"] is not None
        if named != (value is not None):
            expected = "the commit of the encoder" if named else "no revision without an encoder"
            raise complaint(expected, "nothing" if value is None else value)
        if value is not None and not _REVISION.fullmatch(value):
            raise complaint("a commit, 40 hexadecimal digits", value, "copy it from the hub's history of the model")
        return value

    @field_validator("folder")
    @classmethod
    def _one_encoder(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("encoder") is not None:
            raise complaint("encoder or folder", "both")
        return value

    @field_validator("features")
    @classmethod
    def _somewhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        given = [value, *(info.data.get(key, "refused already") for key in ("encoder", "folder"))]
        if all(source is None for source in given):
            raise complaint("features, an encoder with its revision, or a folder", "none of them")
        return value


class TokensCondition(Section):
    """Tokens of the target's own vocabulary: a prompt in its template (Lumina-mGPT, Anole, Janus-Pro)."""

    kind: Literal["tokens"] = Field(description="`tokens`: tokens of the target's own vocabulary.")
    layout: Literal["lumina", "anole", "janus"] = Field(
        description="Tokens around the prompt. `lumina`: begin of image and the image's size after it; "
        "unconditional rows hold only these. `anole`: begin of image after it; unconditional rows hold the first "
        "token and this one. `janus`: unconditional rows have padding tokens instead of the prompt."
    )
    tokenizer: RelativePath = Field(description="The target's tokenizer.json, relative to the spec's folder.")
    length: Annotated[int, Within(limits.TOKENS_PREFIX)] = Field(
        default=256, description="Prefix positions (W); a prompt with more tokens is refused."
    )
    width: Annotated[int, Within(limits.LUMINA_PIXELS)] | None = Field(
        default=None,
        validate_default=True,
        description=f"The image's width in pixels, a multiple of {LUMINA_STEP}; lumina only.",
    )
    height: Annotated[int, Within(limits.LUMINA_PIXELS)] | None = Field(
        default=None,
        validate_default=True,
        description=f"The image's height in pixels, a multiple of {LUMINA_STEP}; lumina only.",
    )
    template: str | None = Field(
        default=None,
        description="The text around {prompt}; lumina also accepts {width} and {height}. null: the layout's template.",
    )

    @field_validator("width", "height")
    @classmethod
    def _sides(cls, value: int | None, info: ValidationInfo) -> int | None:
        layout = info.data.get("layout")
        if layout == "lumina" and (value is None or value % LUMINA_STEP):
            raise complaint(f"pixels, a multiple of {LUMINA_STEP}", "nothing" if value is None else str(value))
        if layout in ("anole", "janus") and value is not None:
            raise complaint(f"no size: {layout} draws one", str(value), "leave it out")
        return value

    @field_validator("template")
    @classmethod
    def _with_a_place(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        if value.count("{prompt}") != 1:
            raise complaint("a text with {prompt} in it, once", repr(value))
        known = _PLACES if info.data.get("layout") == "lumina" else _PLACES[:1]
        for name in re.findall(r"\{(\w*)\}", value):
            if name not in known:
                raise complaint(f"no place but {', '.join('{' + k + '}' for k in known)}", "{" + name + "}")
        return value


class TextCondition(Section):
    """A text to continue, or a chat, in the target's own tokens (Llama)."""

    kind: Literal["text"] = Field(description="`text`: a text to continue, or a chat.")
    tokenizer: RelativePath = Field(description="The target's tokenizer.json, relative to the spec's folder.")
    chat_template: RelativePath | None = Field(
        default=None,
        description="Jinja template that turns the messages of a chat into a text, relative to the spec's folder. "
        "A prompt is then the user's first message. null: there are no chats, a prompt is continued as it is.",
    )
    length: Annotated[int, Within(limits.TOKENS_PREFIX)] = Field(
        default=512, description="Prefix positions (W); a prompt with more tokens is refused."
    )


Condition = Annotated[
    WordsCondition | ClassCondition | T5Condition | TokensCondition | TextCondition, Field(discriminator="kind")
]

"""Finds the chat template of a published model: in a GGUF file's metadata, or in a Hugging Face folder or file.

A template is Jinja text, which says how the turns of a conversation stand in a prompt. It may name special tokens of
the tokenizer as variables, such as `bos_token`: their values are set at its top, so that the template needs no other
file. Knows where templates and these tokens are kept. Does not run them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coolsd_rt import limits
from coolsd_rt.checkpoints.gguf.header import read_header
from coolsd_rt.checkpoints.reader import check_link
from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json, read_text, why_unusable
from coolsd_rt.pretrained.special_tokens import SPECIAL_TOKENS

JINJA, CONFIG = "chat_template.jinja", "tokenizer_config.json"
"""Files of a Hugging Face folder that have a template; the first that is there is read."""
_KEY = "chat_template"


def chat_template(source: Path) -> bytes:
    """Return the template of a GGUF file, a folder, a tokenizer_config.json, or a file with the template itself.

    Special tokens that it names are set at its top, where the file or the folder says what they are.
    Raises UserError if there is none, and as the readers of these files do.
    """
    if why_unusable(source) == "a folder":
        found = next((source / name for name in (JINJA, CONFIG) if why_unusable(source / name) != "nothing"), None)
        if found is None:
            raise UserError(str(source), expected=f"{JINJA} or {CONFIG} in it", found="neither")
        source = found
    check_link(source)
    if source.suffix == ".gguf":
        key, fields = f"tokenizer.{_KEY}", read_header(source).fields
        return _text(f"{source}: {key}", fields.get(key), _tokens_of_gguf(fields))
    if source.suffix == ".json":
        data = _config(source)
        return _text(f"{source}: {_KEY}", _default(data.get(_KEY)), data)
    beside = source.parent / CONFIG
    tokens = _config(beside) if source.name == JINJA and why_unusable(beside) != "nothing" else {}
    return _text(str(source), read_text(source, "a chat template", limits.CONFIG_BYTES), tokens)


def _config(path: Path) -> Mapping[str, Any]:
    check_link(path)
    data = read_json(path, f"a {CONFIG}", limits.TOKENIZER_BYTES)
    return data if isinstance(data, dict) else {}


def _tokens_of_gguf(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the special tokens that a GGUF file names by their ids."""
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        return {}
    ids = {name: fields.get(f"tokenizer.ggml.{key}") for name, key in SPECIAL_TOKENS.items()}
    return {name: tokens[i] for name, i in ids.items() if isinstance(i, int) and 0 <= i < len(tokens)}


def _heading(template: str, tokens: Mapping[str, Any]) -> str:
    """Return what sets the special tokens that a template names. tokens: text, or a dict with the key `content`."""
    lines = ""
    for name in SPECIAL_TOKENS:
        given = tokens.get(name)
        text = given.get("content") if isinstance(given, dict) else given
        if isinstance(text, str) and re.search(rf"\b{name}\b", template):
            lines += f"{{% set {name} = {json.dumps(text)} %}}\n"
    return lines


def _default(value: Any) -> Any:
    """Of several named templates return the one for conversations."""
    if not isinstance(value, list):
        return value
    named = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
    return named.get("default")


def _text(what: str, value: Any, tokens: Mapping[str, Any]) -> bytes:
    if not isinstance(value, str) or not value.strip():
        found = "nothing" if value is None or value == "" else str(type(value).__name__)
        raise UserError(what, expected="a chat template", found=found, fix="name a file of Jinja in sources.template")
    if len(data := (_heading(value, tokens) + value).encode()) > limits.CONFIG_BYTES:
        raise UserError(what, expected=f"a chat template of at most {limits.CONFIG_BYTES} bytes", found=str(len(data)))
    return data

"""Finds the chat template of a published model: in a GGUF file's metadata, or in a Hugging Face folder or file.

A template is Jinja text, which says how the turns of a conversation stand in a prompt. Knows where templates are kept.
Does not run them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coolsd_rt import limits
from coolsd_rt.checkpoints.gguf.header import read_header
from coolsd_rt.checkpoints.reader import check_link
from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json, read_text, why_unusable

JINJA, CONFIG = "chat_template.jinja", "tokenizer_config.json"
"""Files of a Hugging Face folder that have a template; the first that is there is read."""
_KEY = "chat_template"


def chat_template(source: Path) -> bytes:
    """Return the template of a GGUF file, a folder, a tokenizer_config.json, or a file with the template itself.

    Raises UserError if there is none, and as the readers of these files do.
    """
    if why_unusable(source) == "a folder":
        found = next((source / name for name in (JINJA, CONFIG) if why_unusable(source / name) != "nothing"), None)
        if found is None:
            raise UserError(str(source), expected=f"{JINJA} or {CONFIG} in it", found="neither")
        source = found
    check_link(source)
    if source.suffix == ".gguf":
        key = f"tokenizer.{_KEY}"
        return _text(f"{source}: {key}", read_header(source).fields.get(key))
    if source.suffix == ".json":
        data = read_json(source, f"a {CONFIG}", limits.TOKENIZER_BYTES)
        value = data.get(_KEY) if isinstance(data, dict) else None
        return _text(f"{source}: {_KEY}", _default(value))
    return _text(str(source), read_text(source, "a chat template", limits.CONFIG_BYTES))


def _default(value: Any) -> Any:
    """Of several named templates return the one for conversations."""
    if not isinstance(value, list):
        return value
    named = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
    return named.get("default")


def _text(what: str, value: Any) -> bytes:
    if not isinstance(value, str) or not value.strip():
        found = "nothing" if value is None or value == "" else str(type(value).__name__)
        raise UserError(what, expected="a chat template", found=found, fix="name a file of Jinja in sources.template")
    if len(data := value.encode()) > limits.CONFIG_BYTES:
        raise UserError(what, expected=f"a chat template of at most {limits.CONFIG_BYTES} bytes", found=str(len(data)))
    return data

"""Read a model's config from the safetensors header of its weights file, without torch.

Knows the metadata key `config` (the JSON of a config dataclass). Does not know the values of tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.files import JsonError, parse_json
from coolsd_rt.store.weights import WeightsHeader, check_safetensors

_FIX = "name a file written by the training tools, or add the config to its metadata"


def config_of(path: Path, header: WeightsHeader) -> dict[str, Any]:
    """Return the config in a header that was already read. Raises UserError if there is none."""
    text = header.metadata.get("config")
    if text is None:
        found = f"metadata with {', '.join(sorted(header.metadata))[:120] or 'no keys'}"
        raise UserError(str(path), expected="the model's config in the metadata key 'config'", found=found, fix=_FIX)
    try:
        config = parse_json(text)
    except JsonError as error:
        config, found = None, str(error)
    else:
        found = text[:60]
    if not isinstance(config, dict):
        raise UserError(str(path), expected="a JSON mapping in the metadata key 'config'", found=found, fix=_FIX)
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Return the config of a weights file, unchecked.

    Raises UserError if the file is not a complete safetensors file with a config.
    """
    return config_of(path, check_safetensors(path))


def size_of(path: Path, config: dict[str, Any], key: str) -> int:
    """Return a positive size of a config. Raises UserError if it is missing or not a positive integer."""
    value = config.get(key)
    if type(value) is not int or value < 1:
        found = "nothing" if value is None else repr(value)
        raise UserError(f"{path}: config: {key}", expected="a positive whole number", found=found, fix=_FIX)
    return value

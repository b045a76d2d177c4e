"""Saves the state of a training in one atomic file: tensors as safetensors, everything else as JSON in its metadata.

One file holds both, so that they always belong to the same step. Nothing is pickled. Knows trees of dicts, lists,
tuples, tensors and plain values. Does not know what they mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import JsonError, parse_json, why_unusable
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.store.strict import Strict, validate
from coolsd_rt.store.weights import check_safetensors

_KEY = "tree"
_TENSOR, _TUPLE, _PAIRS, _FLOAT = "$tensor", "$tuple", "$pairs", "$float"


def save_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree to `path`, replacing the previous one. After a kill or on a full disk the previous file remains.

    Raises CoolsdError if the disk is full or the folder is not writable, TypeError for a value that cannot be saved.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(dict(tree), tensors, ""), sort_keys=True)
    data = save(tensors, metadata={_KEY: text})
    with disk_errors(path.parent, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def load_tree(path: Path) -> dict[str, Any] | None:
    """Return the tree that was saved last, on the CPU; None before the first save.

    Raises UserError if the file is not complete safetensors, CoolsdError if `save_tree` did not write it.
    """
    if (found := why_unusable(path)) == "nothing":
        return None
    if found:
        raise UserError(str(path), expected="a checkpoint of train-draft", found=found, fix="remove it")
    text = check_safetensors(path).metadata.get(_KEY)
    if text is None:
        fix = f"remove {path} to begin again"
        raise CoolsdError(str(path), expected="a checkpoint of train-draft", found="another safetensors file", fix=fix)
    fix = f"remove {path} to begin again"
    try:
        tree = _unpacked(parse_json(text), load_file(str(path)))
    except JsonError as error:
        raise CoolsdError(str(path), expected="a checkpoint of train-draft", found=str(error), fix=fix) from error
    except MISFITS as error:
        raise unfit(path) from error
    if not isinstance(tree, dict):
        raise unfit(path)
    return tree


class TrainState(Strict):
    """The state of a training as `train` saves it. The code that restores a part also checks it."""

    identity: dict[str, Any]
    training: dict[str, Any]
    best: dict[str, Any]
    first: dict[str, Any]
    stale: int = Field(ge=0)
    history: list[dict[str, Any]]


MISFITS = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError)
"""Exceptions raised when the parts of a state do not fit the networks."""


def unfit(path: Path) -> CoolsdError:
    """Return the error for a checkpoint whose parts do not fit the networks."""
    found, fix = "a checkpoint whose parts do not match", f"remove {path} to begin again"
    return CoolsdError(str(path), expected="a checkpoint of train-draft", found=found, fix=fix)


def load_state(path: Path) -> TrainState | None:
    """Return the state that was saved last; None before the first save. Raises as `load_tree` does."""
    tree = load_tree(path)
    if tree is None:
        return None
    fix = f"remove {path} to begin again"
    return validate(tree, TrainState, str(path), expected="a checkpoint of train-draft", fix=fix)


def _packed(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone().contiguous()  # copies: safetensors refuses shared memory
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        parts = [(key, _packed(part, tensors, f"{name}.{key}" if name else str(key))) for key, part in value.items()]
        return {_PAIRS: [list(pair) for pair in parts]}  # keys may be numbers, which JSON would convert to strings
    if isinstance(value, list | tuple):
        items = [_packed(part, tensors, f"{name}.{i}") for i, part in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}  # NaN, which JSON does not have
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: {type(value).__name__} is no plain value")


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _TUPLE in value:
        return tuple(_unpacked(part, tensors) for part in value[_TUPLE])
    return {key: _unpacked(part, tensors) for key, part in value[_PAIRS]}

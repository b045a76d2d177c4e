"""Weights files to networks: safetensors whose header carries the config, loaded strictly.

Knows the networks and what their files must hold. Does not know specs, engines or training. Nothing is unpickled, and
no tensor is read before the header has been compared with the network, name by name and shape by shape.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from torch import Tensor, nn

from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import UserError
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.header import config_of, read_config
from coolsd_rt.models.llamagen import LlamaGen, LlamaGenConfig
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.store.weights import TensorInfo, check_safetensors

__all__ = [
    "load_draft",
    "load_draft_model",
    "load_target",
    "load_tokenizer",
    "model_dims",
    "parse_config",
    "read_config",
]

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)
_FLOATS = ("F16", "BF16", "F32")
_RETRAIN = "name the file that belongs to this model, or train it again"


def load_target(path: Path) -> LlamaGen:
    """The target, float32, in evaluation mode.

    Raises:
        UserError: not whole safetensors; a config key that is unknown, missing or wrong; a tensor that is missing,
            surplus, of another shape or type, or not finite.
    """
    return _load(path, LlamaGenConfig, LlamaGen)


def load_draft(path: Path, target: LlamaGen) -> Eagle:
    """The EAGLE head of `target`, float32. Its file holds its own tensors: the embedding and head are the target's.

    Raises UserError as `load_target` does, and if the head was not made for a target of these sizes.
    """
    draft = _load(path, EagleConfig, Eagle)
    if draft.cfg.dim != target.cfg.dim:
        raise UserError(
            f"{path}: config: dim",
            expected=f"the target's {target.cfg.dim}",
            found=str(draft.cfg.dim),
            fix="name the draft that was distilled from this target",
        )
    if draft.cfg.layer.head_dim != target.cfg.layer.head_dim:
        raise UserError(
            f"{path}: config: heads",
            expected=f"heads of the target's size {target.cfg.layer.head_dim}, since they share the RoPE table",
            found=str(draft.cfg.layer.head_dim),
            fix="name the draft that was distilled from this target",
        )
    return draft


def load_draft_model(path: Path, target: LlamaGen) -> LlamaGen:
    """A small model of its own that drafts for `target`, float32: another LlamaGen with the same words and picture.

    Raises UserError as `load_target` does, and if the two do not speak of the same codes, cells and words.
    """
    draft = _load(path, LlamaGenConfig, LlamaGen)
    for name in ("vocab", "grid", "prefix", "words"):
        wanted, found = getattr(target.cfg, name), getattr(draft.cfg, name)
        if found != wanted:
            fix = "name a draft that was trained on the target's codes and words"
            raise UserError(f"{path}: config: {name}", expected=f"the target's {wanted}", found=str(found), fix=fix)
    return draft


def load_tokenizer(path: Path) -> VQTokenizer:
    """The image tokenizer, float32. Raises UserError as `load_target` does."""
    return _load(path, VQConfig, VQTokenizer)


def model_dims(target: LlamaGenConfig, draft: EagleConfig | LlamaGenConfig | None) -> ModelDims:
    """The contract's sizes of a target and its draft; None is no draft."""
    return ModelDims(
        vocab=target.vocab,
        dim=target.dim,
        layers=target.layers,
        heads=target.heads,
        head_dim=target.layer.head_dim,
        prefix=target.prefix,
        tokens=target.tokens,
        draft_layers=draft.layers if draft else 0,
        draft_heads=draft.heads if draft else 0,
        draft_head_dim=draft.layer.head_dim if draft else 0,
        draft_dim=draft.dim if isinstance(draft, LlamaGenConfig) else 0,
    )


def parse_config(path: Path, cls: type[C], data: Mapping[str, Any]) -> C:
    """A config dataclass from its JSON. Raises UserError at an unknown, missing or wrong key."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else _RETRAIN
            expected = f"one of {', '.join(known)}"
            raise UserError(f"{path}: config: {key}", expected=expected, found="an unknown key", fix=hint)
    for name, field in known.items():
        if name not in data and field.default is MISSING:
            raise UserError(f"{path}: config: {name}", expected="a value", found="nothing", fix=_RETRAIN)
    try:
        config = TypeAdapter(cls).validate_json(json.dumps(dict(data)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = json.dumps(first.get("input"), default=str)[:60]
        raise UserError(f"{path}: config: {where}", expected=first["msg"], found=found, fix=_RETRAIN) from error
    _check_sizes(path, config)
    return config


def _check_sizes(path: Path, config: Any) -> None:
    """Sizes are positive, and heads divide what they share."""
    for field in fields(config):
        value = getattr(config, field.name)
        sizes = value if isinstance(value, tuple) else (value,)
        if isinstance(value, bool):  # a switch, not a size
            continue
        if any(isinstance(size, int | float) and not size > 0 for size in sizes) or sizes == ():
            expected = "positive sizes"
            raise UserError(f"{path}: config: {field.name}", expected=expected, found=str(value), fix=_RETRAIN)
    if isinstance(config, LlamaGenConfig | EagleConfig) and config.dim % (4 * config.heads):
        expected = "a dim of heads times a multiple of 4 (two axes of RoPE pairs)"
        found = f"dim {config.dim}, {config.heads} heads"
        raise UserError(f"{path}: config: dim", expected=expected, found=found, fix=_RETRAIN)
    if isinstance(config, VQConfig):
        for width in {config.channels * m for m in (1, *config.multipliers)}:
            if width % config.norm_groups:
                expected = f"a number that divides every width (here {width})"
                found = str(config.norm_groups)
                raise UserError(f"{path}: config: norm_groups", expected=expected, found=found, fix=_RETRAIN)


def _load(path: Path, config_type: type[Any], network: type[M]) -> M:
    header = check_safetensors(path)
    config = parse_config(path, config_type, config_of(path, header))
    with torch.device("meta"):  # shapes without memory: a config may ask for anything
        wanted = {k: tuple(v.shape) for k, v in network(config).state_dict().items()}
    _compare(path, wanted, header.tensors)
    model = network(config)
    with safe_open(str(path), framework="pt") as file:
        state = {key: _read(path, key, file.get_tensor(key)) for key in wanted}
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _read(path: Path, key: str, value: Tensor) -> Tensor:
    if not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).sum())
        found = f"{bad} of {value.numel()} NaN or infinite"
        raise UserError(f"{path}: {key}", expected="finite numbers", found=found, fix="train the file again")
    return value.float()


def _compare(path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorInfo]) -> None:
    """Raise UserError at the first name, shape or type that is not as the network wants it."""
    if missing := sorted(set(wanted) - set(found)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        expected = f"a tensor {list(wanted[missing[0]])}{more}"
        raise UserError(f"{path}: {missing[0]}", expected=expected, found="none", fix=_RETRAIN)
    if surplus := sorted(set(found) - set(wanted)):
        more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        what = f"{list(found[surplus[0]].shape)}{more}"
        raise UserError(f"{path}: {surplus[0]}", expected="no such tensor", found=what, fix=_RETRAIN)
    for key, shape in wanted.items():
        info = found[key]
        if info.shape != shape:
            raise UserError(
                f"{path}: {key}", expected=f"shape {list(shape)}", found=str(list(info.shape)), fix=_RETRAIN
            )
        if info.dtype not in _FLOATS:
            expected = f"one of {', '.join(_FLOATS)}"
            raise UserError(f"{path}: {key}", expected=expected, found=info.dtype, fix="save it as float16")

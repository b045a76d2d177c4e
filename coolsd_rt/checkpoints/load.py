"""Loads weights files into networks: safetensors with the config in the header, checked strictly.

Knows the networks and the required contents of their files. Does not know specs, engines or training. Nothing is
unpickled, and no tensor is read before the header was compared with the network, name by name and shape by shape. With
`lazy` the weights stay in their file and are read one at a time when their values are needed (`models.lazy`);
non-finite values are detected then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from coolsd_rt.errors import UserError
from coolsd_rt.models.config import RETRAIN, parse_config
from coolsd_rt.models.decoder import Decoder, MlpHead
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.families import check_draft_model, check_rows, model_dims, parse_target
from coolsd_rt.models.finite import non_finite
from coolsd_rt.models.header import config_of, read_config
from coolsd_rt.models.lazy import lazy as lazy_tensor
from coolsd_rt.models.row_config import RowConfig
from coolsd_rt.models.rows import RowHead
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.store.weights import TensorInfo, WeightsHeader, check_safetensors

__all__ = [
    "load_draft",
    "load_draft_model",
    "load_network",
    "load_rows",
    "load_target",
    "load_tokenizer",
    "model_dims",
    "parse_config",
    "read_config",
]

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)
_FLOATS = ("F16", "BF16", "F32")
_WHOLE = ("I32",)


def load_target(path: Path, dtype: torch.dtype = torch.float32, *, lazy: bool = False) -> Decoder:
    """Load the target, of the family that its header names (default: LlamaGen with words), in evaluation mode.

    dtype: of its weights and RoPE table. Tensors are converted one at a time, so that no second copy is in memory.
    lazy: the weights stay in the file, and the network cannot run before they are read.

    Raises:
        UserError: the file is not complete safetensors; the family is unknown; a config key is unknown, missing or
            wrong; or a tensor is missing, surplus, of another shape or dtype, or not finite.
    """
    header = check_safetensors(path)
    return _load(path, header, Decoder, parse_target(path, config_of(path, header)), dtype, lazy)


def load_draft(path: Path, target: Decoder, dtype: torch.dtype = torch.float32, *, lazy: bool = False) -> Eagle:
    """Load the EAGLE head of `target`.

    Its file lacks the output head, and usually the embedding, which are the target's.

    dtype and lazy as in `load_target`. Raises UserError as it does, and if the head was made for a target of other
    sizes.
    """
    draft = load_network(path, Eagle, EagleConfig, dtype, lazy)
    wanted, found = target.cfg, draft.cfg
    fix = "name the draft that was distilled from this target"
    if found.dim != wanted.dim:
        raise UserError(f"{path}: config: dim", expected=f"the target's {wanted.dim}", found=str(found.dim), fix=fix)
    if found.layer.head_dim != wanted.layer.head_dim:
        size = wanted.layer.head_dim
        expected = f"heads of the target's size {size}, since they share the RoPE table"
        raise UserError(f"{path}: config: heads", expected=expected, found=str(found.layer.head_dim), fix=fix)
    if found.vocab not in (None, wanted.vocab):
        expected = f"the target's {wanted.vocab}"
        raise UserError(f"{path}: config: vocab", expected=expected, found=str(found.vocab), fix=fix)
    _check_draft_ids(path, draft, target)
    return draft


def _check_draft_ids(path: Path, draft: Eagle, target: Decoder) -> None:
    """Raise UserError unless the tokens that a head drafts are tokens of the target's head, each once, in order."""
    if draft.draft_ids is None:
        return
    if isinstance(target.output, MlpHead):
        expected = "none for a target whose output head has two layers"
        raise UserError(f"{path}: config: draft_vocab", expected=expected, found=str(draft.cfg.draft_vocab))
    ids, codes = draft.draft_ids.tolist(), len(target.output.weight)
    wrong = [b for a, b in zip([-1, *ids], ids, strict=False) if b <= a or b >= codes]
    if wrong:
        expected = f"rising ids of the target's {codes} tokens"
        raise UserError(f"{path}: draft_ids", expected=expected, found=f"{wrong[0]} out of order or range", fix=RETRAIN)


def load_draft_model(path: Path, target: Decoder, dtype: torch.dtype = torch.float32, *, lazy: bool = False) -> Decoder:
    """Load an independent small model that drafts for `target`: another target with the same condition and image.

    dtype and lazy as in `load_target`. Raises UserError as it does, and if the two differ in codes, layout or
    condition.
    """
    draft = load_target(path, dtype, lazy=lazy)
    check_draft_model(path, draft.cfg, target.cfg)
    return draft


def load_rows(path: Path, target: Decoder, dtype: torch.dtype = torch.float32, *, lazy: bool = False) -> RowHead:
    """Load the row head of `target`. Its file lacks the embedding and the output head, which are the target's.

    dtype and lazy as in `load_target`. Raises UserError as it does, and if the head was made for a target of another
    width or row length.
    """
    draft = load_network(path, RowHead, RowConfig, dtype, lazy)
    check_rows(path, draft.cfg, target.cfg)
    return draft


def load_tokenizer(path: Path) -> VQTokenizer:
    """Load the image tokenizer, float32. Raises UserError as `load_target` does."""
    return load_network(path, VQTokenizer, VQConfig)


def load_network(
    path: Path, network: Callable[[C], M], config_type: type[C], dtype: torch.dtype = torch.float32, lazy: bool = False
) -> M:
    """Load a network of a config that `parse_config` can read. dtype, lazy and errors as in `load_target`."""
    header = check_safetensors(path)
    return _load(path, header, network, parse_config(path, config_type, config_of(path, header)), dtype, lazy)


def _load(path: Path, header: WeightsHeader, network: Callable[[C], M], config: C, dtype: torch.dtype, lazy: bool) -> M:
    with torch.device("meta"):  # no memory: the config may request any size
        model = network(config)
    wanted = model.state_dict()
    _compare(path, wanted, header.tensors)
    state: dict[str, Tensor] = {}
    with safe_open(str(path), framework="pt") as file:
        for key, like in wanted.items():
            if not like.is_floating_point():
                state[key] = file.get_tensor(key).clone()  # clone: as in `_read`
            elif lazy:
                state[key] = lazy_tensor(tuple(like.shape), dtype, partial(_read_one, path, key, dtype))
            else:
                state[key] = _read(path, key, file.get_tensor(key), dtype)
    model.load_state_dict(state, assign=True)
    if isinstance(model, Decoder):
        model.make_table()
        model.rope = model.rope.to(dtype)
    return model.eval().requires_grad_(False)


def _read_one(path: Path, key: str, dtype: torch.dtype) -> Tensor:
    """Read one tensor of a file whose header was compared. The file is mapped only during the read."""
    with safe_open(str(path), framework="pt") as file:
        return _read(path, key, file.get_tensor(key), dtype)


def _read(path: Path, key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    if bad := non_finite(value):
        found = f"{bad} of {value.numel()} NaN or infinite"
        raise UserError(f"{path}: {key}", expected="finite numbers", found=found, fix=RETRAIN)
    made = value.to(dtype, copy=True)  # copy: the value is memory-mapped, and the file may change
    if made.dtype != value.dtype and (bad := non_finite(made)):
        name = str(dtype).removeprefix("torch.")
        found = f"{bad} of {value.numel()} above its largest, {torch.finfo(dtype).max:g}"
        fix = "choose the precision bf16 or fp32"
        raise UserError(f"{path}: {key}", expected=f"numbers that {name} can hold", found=found, fix=fix)
    return made


def _compare(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, TensorInfo]) -> None:
    """Raise UserError for the first name, shape or dtype that differs from the network's."""
    if missing := sorted(set(wanted) - set(found)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        expected = f"a tensor {list(wanted[missing[0]].shape)}{more}"
        raise UserError(f"{path}: {missing[0]}", expected=expected, found="none", fix=RETRAIN)
    if surplus := sorted(set(found) - set(wanted)):
        more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        what = f"{list(found[surplus[0]].shape)}{more}"
        raise UserError(f"{path}: {surplus[0]}", expected="no such tensor", found=what, fix=RETRAIN)
    for key, like in wanted.items():
        info, shape = found[key], list(like.shape)
        if list(info.shape) != shape:
            raise UserError(f"{path}: {key}", expected=f"shape {shape}", found=str(list(info.shape)), fix=RETRAIN)
        kinds, fix = (_FLOATS, "save it as float16") if like.is_floating_point() else (_WHOLE, "save it as int32")
        if info.dtype not in kinds:
            raise UserError(f"{path}: {key}", expected=f"one of {', '.join(kinds)}", found=info.dtype, fix=fix)

"""The draft networks that can be trained: kind, sizes, initial weights, and the file that is written.

| kind | network | training |
|---|---|---|
| eagle | one Llama layer on the target's features | target features with noise; the loss includes features |
| eagle3 | the same | several steps of its own predictions, as in a round; no loss on features |
| model | a small target of the target's family | tokens |
| rows | a row head on the target's features | all drafts of a row from decided tokens alone; no loss on features |

`eagle3` is only the training method of EAGLE-3. Its other half, features of three layers of the target, would need
graphs that engines do not have, and is not supported. Knows networks. Does not know data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from coolsd_rt import limits
from coolsd_rt.checkpoints.load import load_draft, load_draft_model, load_rows
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig, EagleConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.families import FAMILY_KEY, family_of
from coolsd_rt.models.row_config import AHEAD, RowConfig
from coolsd_rt.models.rows import RowHead
from coolsd_rt.spec.fields import check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.train.row_students import RowStudent
from coolsd_rt.train.students import HeadStudent, ModelStudent

Kind = Literal["eagle", "eagle3", "model", "rows"]
KINDS: tuple[Kind, ...] = ("eagle", "eagle3", "model", "rows")


@dataclass(frozen=True)
class DraftSizes:
    """Requested sizes; None is the default of the kind.

    dim and heads: for the kind `model` only; a head has the target's.
    """

    layers: Annotated[int, Within(limits.LAYERS)] | None = None
    dim: Annotated[int, Within(limits.WIDTH)] | None = None
    heads: Annotated[int, Within(limits.HEADS)] | None = None
    ffn: Annotated[int, Within(limits.FFN)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def given(self) -> dict[str, int]:
        """The sizes that are not None."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def make_student(
    kind: Kind, shape: DraftSizes, target: Decoder, start_from: Path | None, seed: int, ahead: int | None = None
) -> HeadStudent | ModelStudent | RowStudent:
    """Create a new draft, or load the one in `start_from`; float32, ready for training.

    ahead: drafts that a row head guesses along the row; None: the default. Not used for other kinds.

    Raises UserError for impossible sizes, for sizes together with a file, or for a file made for another target.
    """
    if start_from is not None and shape.given:
        found = ", ".join(f"--{name}" for name in shape.given)
        raise UserError("--from", expected="the sizes of that file", found=found, fix="leave them out")
    check_sizes(kind, shape)
    torch.manual_seed(seed)
    if kind == "model":
        if start_from is not None:
            model = load_draft_model(start_from, target)
        else:
            model = Decoder(_model_config(target.cfg, shape))
            initialise(model)
        return ModelStudent(model.train().requires_grad_(True), target)
    if kind == "rows":
        if start_from is not None:
            rows = load_rows(start_from, target)
        else:
            rows = RowHead(_row_config(target.cfg, shape, ahead))
        return RowStudent(rows.train().requires_grad_(True), target)
    head = Eagle(_head_config(target.cfg, shape)) if start_from is None else load_draft(start_from, target)
    return HeadStudent(head.train().requires_grad_(True), target)


def drafting(head: Eagle, ids: Tensor) -> Eagle:
    """Return a copy of a head that drafts only the tokens `ids`, int64 [K], in rising order."""
    made = Eagle(replace(head.cfg, draft_vocab=len(ids)))
    made.load_state_dict({**head.state_dict(), "draft_ids": ids.to(torch.int32)})
    return made.train(head.training)


def check_sizes(kind: Kind, shape: DraftSizes) -> None:
    """Raise UserError: a width or heads for a head, which has the target's, or layers for a row head."""
    if kind == "rows" and "layers" in shape.given:
        expected, fix = "none for the kind rows, which has no layers", "leave it out"
        raise UserError("--layers", expected=expected, found=str(shape.given["layers"]), fix=fix)
    for name in ("dim", "heads"):
        if kind != "model" and name in shape.given:
            expected = f"none for the kind {kind}, which has the target's"
            fix = "leave it out, or use --kind model"
            raise UserError(f"--{name}", expected=expected, found=str(shape.given[name]), fix=fix)


def _head_config(target: DecoderConfig, shape: DraftSizes) -> EagleConfig:
    layer = target.layer
    config = EagleConfig(
        dim=layer.dim,
        heads=layer.heads,
        ffn=shape.ffn or layer.ffn,
        norm_eps=layer.norm_eps,
        layers=shape.layers or 1,
        kv_heads=layer.kv_heads,
        pairs=layer.pairs,
    )
    return config


def _row_config(target: DecoderConfig, shape: DraftSizes, ahead: int | None) -> RowConfig:
    row = target.layout.stride
    if ahead is not None and ahead > row:
        raise UserError("--own-steps", expected=f"at most the row's {row} tokens", found=str(ahead))
    layer = target.layer
    return RowConfig(layer.dim, row, shape.ffn or layer.ffn, ahead or min(AHEAD, row), layer.norm_eps)


def _model_config(target: DecoderConfig, shape: DraftSizes) -> DecoderConfig:
    """Return a config with a quarter of the target's layers and its other sizes, unless other sizes are requested."""
    sizes = {"layers": max(1, target.layers // 4)} | shape.given
    known = {f.name for f in fields(target)}
    if "kv_heads" in known and "heads" in sizes:
        sizes["kv_heads"] = sizes["heads"]
    if "dim" in sizes and "heads" not in sizes and sizes["dim"] % target.layer.head_dim == 0:
        sizes["heads"] = sizes["dim"] // target.layer.head_dim
    if "dim" in sizes and "ffn" not in shape.given:
        sizes["ffn"] = max(1, round(target.ffn * sizes["dim"] / target.dim))
    config = replace(target, **sizes)
    for fault in config.faults():
        raise UserError(f"--{fault.key}", expected=fault.expected, found=fault.found, fix="choose other sizes")
    return config


def initialise(model: Decoder) -> None:
    """Initialise with small normal weights; outputs of residual branches are scaled by depth."""
    for name, p in model.named_parameters():
        if p.ndim < 2:
            continue
        std = 0.02 if "embedding" in name else p.shape[-1] ** -0.5 * 0.7
        if name.endswith(("wo.weight", "w2.weight")):
            std /= (2 * model.cfg.layers) ** 0.5
        nn.init.normal_(p, std=std)
    nn.init.normal_(model.output.weight, std=0.02)
    nn.init.normal_(model.tok_embeddings.weight, std=0.3)
    if model.cfg.condition == "words":
        nn.init.normal_(model.get_parameter("cls_embedding.embedding.weight"), std=1.0)


def config_of(network: Eagle | RowHead | Decoder) -> dict[str, Any]:
    """Return the config in the header of a network's file, JSON data."""
    if isinstance(network, Eagle | RowHead):
        return asdict(network.cfg)
    return {FAMILY_KEY: family_of(network.cfg).name, **asdict(network.cfg)}


def weights_bytes(model: nn.Module, config: Mapping[str, Any], dtype: torch.dtype = torch.float16) -> bytes:
    """Return one safetensors file with the config as JSON in its header. The same weights give the same bytes.

    The header has a single metadata key, because safetensors does not preserve the order of keys.
    """
    tensors = {
        k: v.detach().to("cpu", dtype if v.is_floating_point() else v.dtype).contiguous()
        for k, v in model.state_dict().items()
    }
    data: bytes = save(tensors, metadata={"config": json.dumps(dict(config), sort_keys=True)})
    return data


def write_weights(path: Path, model: nn.Module, config: Mapping[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write `weights_bytes` atomically, replacing an existing file.

    Raises CoolsdError if the disk is full or the folder is not writable.
    """
    write_bytes(path, weights_bytes(model, config, dtype))


def write_bytes(path: Path, data: bytes) -> None:
    """Write the content of a weights file atomically. Raises as `write_weights` does."""
    with disk_errors(path.parent, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)

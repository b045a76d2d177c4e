"""Torch operators, each exported as one ONNX operator that torch itself would not use.

`tensor_scatter`: torch exports indexed writes as ScatterND, which is correct but does not write in place.
`branch_mask`: the same, for the mask of a tree.
`kth_largest`: torch needs k as a Python number, while the graph takes it as an input.

Each has an eager implementation, so that a graph module can run and be compared before it is exported. Knows these
operators. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxscript.onnx_opset import opset24
from torch import Tensor

OPSET = 24
Translation = Mapping[Any, Callable[..., Any]]


@torch.library.custom_op("coolsd::tensor_scatter", mutates_args=())
def tensor_scatter(past: Tensor, update: Tensor, start: Tensor) -> Tensor:
    """Return past [R, H, T, D] with update [R, H, S, D] written at rows start[r] .. start[r] + S - 1."""
    out = past.clone()
    rows = torch.arange(past.shape[0])[:, None]
    slots = start[:, None] + torch.arange(update.shape[2])
    out.transpose(1, 2)[rows, slots] = update.transpose(1, 2)
    return out


@tensor_scatter.register_fake
def _(past: Tensor, update: Tensor, start: Tensor) -> Tensor:
    return torch.empty_like(past)


@torch.library.custom_op("coolsd::branch_mask", mutates_args=())
def branch_mask(before: Tensor, seen: Tensor, start: Tensor) -> Tensor:
    """Return before bool [R, S, T] with seen bool [R, S, S] written at columns start[r] .. start[r] + S - 1."""
    out = before.clone()
    columns = (start[:, None] + torch.arange(seen.shape[-1]))[:, None].expand_as(seen)
    return out.scatter_(2, columns, seen)


@branch_mask.register_fake
def _(before: Tensor, seen: Tensor, start: Tensor) -> Tensor:
    return torch.empty_like(before)


@torch.library.custom_op("coolsd::kth_largest", mutates_args=())
def kth_largest(x: Tensor, k: Tensor) -> Tensor:
    """Return the k-th largest number of each row of x [..., V], [..., 1]. k: int64 [1] in 1..V."""
    return x.topk(int(k), dim=-1).values[..., -1:].clone()


@kth_largest.register_fake
def _(x: Tensor, k: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], 1))


def _tensor_scatter_onnx(past: Any, update: Any, start: Any) -> Any:
    return opset24.TensorScatter(past, update, start, axis=-2, mode="linear")


def _branch_mask_onnx(before: Any, seen: Any, start: Any) -> Any:
    return opset24.TensorScatter(before, seen, start, axis=-1, mode="linear")


def _kth_largest_onnx(x: Any, k: Any) -> Any:
    # The least of the k largest: with sorted=1 the last of them, which costs a sort.
    values, _ = opset24.TopK(x, k, axis=-1, largest=1, sorted=0)
    return opset24.ReduceMin(values, opset24.Constant(value_ints=[-1]), keepdims=1)  # type: ignore[arg-type]


def translations() -> Translation:
    """Return the table for `torch.onnx.export(custom_translation_table=...)`."""
    return {
        torch.ops.coolsd.tensor_scatter.default: _tensor_scatter_onnx,
        torch.ops.coolsd.branch_mask.default: _branch_mask_onnx,
        torch.ops.coolsd.kth_largest.default: _kth_largest_onnx,
    }

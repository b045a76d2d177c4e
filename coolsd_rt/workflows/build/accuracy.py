"""How much of each matrix's product is lost to row-wise int8 and to int8 by blocks, on activations of the network.

The network runs once in float32 on random ids of its own vocabulary, and every product is repeated in both forms. Row
scales lose most where a few channels are far larger than the others: their matrices take the form by blocks, whose
scales cover 128 channels. Knows modules and matrices. Does not know which form is faster, nor graphs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolsd_rt.contract import GraphContract, ModelDims
from coolsd_rt.export.blocks import Matrix
from coolsd_rt.export.graphs import ConditionGraph
from coolsd_rt.export.hollow import streamed
from coolsd_rt.export.quantize import block_size, quantize_matrix
from coolsd_rt.export.rowwise import LIMIT, quantize_columns
from coolsd_rt.export.torch_onnx import nest
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.lazy import value

LARGEST_LOSS = 0.05
"""Relative error of a product up to which the row-wise form is taken without a look at the other."""
RATIO = 1.5
"""Above it: how many times the error of the form by blocks it may be."""
POSITIONS = 32  # of each row, behind its prefix
_LEAST = 1e-30  # scale: a row of zeros stays zeros
_ROWS = 64  # of activations that a product is repeated on
_PREFIX = 32  # positions of a long prefix that are stepped

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Loss:
    """Relative errors (Frobenius) of one matrix's products. A matrix of several products has its worst."""

    rowwise: float
    block: float

    @property
    def too_large(self) -> bool:
        """Whether the row-wise form loses too much. NaN does."""
        return not (self.rowwise <= LARGEST_LOSS or self.rowwise <= RATIO * self.block)

    def as_dict(self) -> dict[str, float]:
        """JSON data."""
        return {"rowwise": float(f"{self.rowwise:.3g}"), "block": float(f"{self.block:.3g}")}


def loss_of(x: Floats, weight: Floats) -> Loss:
    """x [n, K] times weight [K, N] in both forms, beside float32."""
    exact = x @ weight
    size = float(np.linalg.norm(exact)) or 1.0
    found = (_rowwise(x, weight), _by_blocks(x, weight))
    rowwise, block = (float(np.linalg.norm(y - exact)) / size for y in found)
    return Loss(rowwise, block)


def _units(x: Floats) -> tuple[Floats, Floats]:
    """Codes of the last axis from -127 to 127, as floats, and their step."""
    step = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(_LEAST)) / np.float32(LIMIT)
    return np.rint(x / step), step


def _rowwise(x: Floats, weight: Floats) -> Floats:
    codes, scales = quantize_columns(weight)
    units, step = _units(x)
    y: Floats = (units @ codes.astype(np.float32)) * step * scales
    return y


def _by_blocks(x: Floats, weight: Floats) -> Floats:
    """As MatMulNBits with int8 arithmetic: activations have a scale for each block too."""
    k, n = weight.shape
    block = block_size(k)
    codes, scales = quantize_matrix(weight, block)
    units, step = _units(x.reshape(len(x), k // block, block))
    y = np.zeros((len(x), n), np.float32)
    for i, rows in enumerate(codes.reshape(k // block, block, n)):
        y += (units[:, i] @ rows.astype(np.float32)) * step[:, i] * scales[i]
    return y


@contextmanager
def _heard(module: nn.Module, shapes: Collection[tuple[int, int]], losses: dict[str, Loss]) -> Iterator[None]:
    """While it is open, each product of a matrix of `shapes` puts its loss into `losses`, by the name of its weight."""

    def hook(name: str) -> Any:
        def hear(matrix: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x = args[0].detach().float().flatten(0, -2)
            x = x[torch.linspace(0, len(x) - 1, min(len(x), _ROWS)).long()]
            weight = value(cast(Tensor, matrix.weight)).detach().float()
            found, before = loss_of(x.numpy(), weight.numpy()), losses.get(name, Loss(0.0, 0.0))
            losses[name] = max(found, before, key=lambda loss: loss.rowwise)

        return hear

    named = [
        (name, m) for name, m in module.named_modules() if isinstance(m, Matrix) and tuple(m.weight.shape) in shapes
    ]
    handles = [m.register_forward_hook(hook(f"{name}.weight")) for name, m in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def losses_of(
    module: nn.Module,
    contract: GraphContract,
    given: Mapping[str, Tensor],
    codes: int,
    shapes: Collection[tuple[int, int]],
) -> dict[str, Loss]:
    """Name of each matrix's weight to its loss, from one step of `module` over the prefix and `POSITIONS` image tokens.

    module: a graph of the contract that steps a model, for instance `TargetGraph`. given: inputs in the place of random
    ones, as `prefix` [2, W, C]; `features_in` [2, POSITIONS + W, C] of an EAGLE head. codes: ids are below it. shapes:
    [K, N] of the matrices to look at.
    """
    rng = np.random.default_rng(0)
    prefix = given["prefix"].shape[1]
    padded = any(s.name == "start" for s in contract.inputs)
    first = max(0, prefix - _PREFIX) if padded else 0
    size = prefix - first + POSITIONS
    sizes = {"R": 2, "S": size, "T": prefix + POSITIONS, "P": prefix}
    values: list[Tensor] = []
    for spec in contract.inputs:
        shape = [sizes[n] if isinstance(n, str) else n for n in spec.shape]
        if spec.name in given:
            values.append(given[spec.name][:, -size:] if spec.name == "features_in" else given[spec.name])
        elif spec.name == "ids":
            values.append(torch.from_numpy(rng.integers(0, codes, shape)))
        elif spec.name == "end_features":  # of a row head
            values.append(given["features_in"][:, -2:])
        elif spec.name == "depth":
            values.append(torch.arange(size).repeat(2, 1))
        elif spec.name == "seen":
            values.append(torch.ones(shape, dtype=torch.bool).tril())
        elif spec.dtype == "int64":
            values.append(torch.full(shape, first))
        else:
            values.append(torch.zeros(shape, dtype=getattr(torch, spec.dtype)))
    losses: dict[str, Loss] = {}
    with torch.inference_mode(), _heard(module, shapes, losses), streamed(module):
        module(*nest(contract, values))
    return losses


def calibration(network: Decoder, target: Decoder, dims: ModelDims, seed: int = 0) -> dict[str, Tensor]:
    """Inputs for `losses_of`: the prefix that `network` makes of some prompt; features like the target's.

    The target's features leave its last norm: noise of size 1 times the norm's weights has their large channels.
    """
    graph, rng = ConditionGraph(network.cls_embedding), np.random.default_rng(seed)
    if dims.condition_dim:
        size = (2, dims.prefix, dims.condition_dim)
        condition = torch.from_numpy(rng.standard_normal(size).astype(np.float32))
    else:
        condition = torch.zeros((2, dims.prefix), dtype=torch.int64)
    with torch.inference_mode(), streamed(graph):
        prefix = graph(condition)
    noise = rng.standard_normal((2, dims.prefix + POSITIONS, dims.dim)).astype(np.float32)
    features = torch.from_numpy(noise) * value(target.norm.weight).float()
    return {"prefix": prefix, "features_in": features}

"""Smoke test of every graph of a build: compares ONNX Runtime with the torch module that was exported.

Knows contracts and tolerances. Uses random inputs, in low precision such as a network may meet; `parity` is the full
verification. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.contract import GraphContract
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.graphs import Embedding
from coolsd_rt.export.hollow import streamed
from coolsd_rt.export.torch_onnx import nest
from coolsd_rt.models.lazy import value

SIZES = {"M": 1, "R": 2, "S": 3, "T": 16, "P": 5}
# Largest error relative to the largest value. int8 weights change every output; `parity` judges by how much.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.25}
_PIXEL_LEVELS = 1  # of 255; an image whose every value is one level away has a PSNR of 48 dB


def inputs(contract: GraphContract, seed: int = 0, ids: int = 2) -> dict[str, NDArray[Any]]:
    """Return valid random inputs for a contract: ids below `ids`, caches with content, positions inside the image."""
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for spec in contract.inputs:
        shape = [SIZES[n] if isinstance(n, str) else n for n in spec.shape]
        if spec.name == "depth":
            made[spec.name] = np.tile(np.minimum(np.arange(shape[1]), 1), (shape[0], 1))
        elif spec.name == "seen":  # siblings below the first position
            made[spec.name] = np.tile(np.eye(shape[1], dtype=np.bool_) | (np.arange(shape[1]) == 0), (shape[0], 1, 1))
        elif spec.dtype == "int64":
            made[spec.name] = rng.integers(0, ids, shape)
        else:
            made[spec.name] = rng.random(shape, np.float32).astype(spec.dtype)
    limit = next((s.shape[1] for s in contract.inputs if s.name == "prefix"), 0)
    limit = SIZES[limit] if isinstance(limit, str) else limit
    fixed = {"pos": min(limit, SIZES["T"] - SIZES["S"]), "count": SIZES["S"] - 1, "temperature": 1.0}
    if "probs" in (names := {s.name: s.shape[-1] for s in contract.outputs if s.shape}):
        fixed["top_k"] = int(names["probs"])
    for name, number in fixed.items():
        if name in made:
            made[name] = np.full_like(made[name], number)
    return made


def usual_inputs(feed: dict[str, NDArray[Any]], module: nn.Module, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the inputs of a network's first step: embeddings of its own as the prefix, position 0, empty caches.

    A deep network amplifies rounding at inputs that it never meets: with random keys the logits of SmolLM2 in int8 are
    1.2 away, with its own embeddings 0.08. Graphs without an embedding or a prefix keep their inputs.
    """
    embedding = getattr(module, "embed", None) or getattr(getattr(module, "core", None), "embed", None)
    prefix = feed.get("prefix")
    if not isinstance(embedding, Embedding) or prefix is None or prefix.shape[-1] != embedding.table.embedding_dim:
        return feed
    table = value(embedding.table.weight)
    ids = np.random.default_rng(seed).integers(0, len(table), prefix.shape[:2])
    caches = {k: np.zeros_like(v) for k, v in feed.items() if v.ndim == 4}
    rows = table[torch.from_numpy(ids)].float().numpy().astype(prefix.dtype)
    return {**feed, **caches, "prefix": rows, "pos": np.zeros_like(feed["pos"])}


def smoke(
    name: str,
    path: Path,
    contract: GraphContract,
    module: nn.Module,
    precision: str,
    beside: bool = False,
    ids: int = 2,
) -> float:
    """Run a graph's file and its module on the same inputs. Returns the largest relative error of any output.

    beside: the weights are in a separate file. They are memory-mapped, so that they are not in memory twice; the
    module's weights are read one matrix at a time.
    ids: number of ids that the graph knows, all of which may occur.

    Raises CoolsdError if ONNX Runtime cannot load or run the graph, or if an error exceeds the precision's tolerance.
    """
    feed = inputs(contract, ids=ids)
    if precision != "fp32":
        feed = usual_inputs(feed, module)
    with torch.inference_mode(), streamed(module):
        out = module(*nest(contract, [torch.from_numpy(feed[s.name]) for s in contract.inputs]))
    folder = path.parent if beside else None
    graph = OrtGraph(name, path.read_bytes(), contract, LoadOptions(threads=1, spinning=False), folder, mapped=beside)
    found = graph.call(**feed)
    wanted = dict(zip((s.name for s in contract.outputs), out if isinstance(out, tuple) else (out,), strict=True))
    if precision != "fp32" and "tokens" in wanted:
        wanted = _first_draft(wanted)  # a different token changes the distribution of all later ones
    return max(_error(name, key, found[key], value.numpy(), precision) for key, value in wanted.items())


def _first_draft(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in outputs.items() if k not in ("tokens", "probs")}


def _error(graph: str, name: str, found: NDArray[Any], wanted: NDArray[Any], precision: str) -> float:
    gap = np.abs(found.astype(np.float64) - wanted)
    if found.dtype == np.uint8:
        error, limit = float(gap.max()), float(_PIXEL_LEVELS)
    else:
        error = float(gap.max() / max(1e-6, float(np.abs(wanted).max())))
        limit = TOLERANCE[precision]
    if not error <= limit:  # written so that NaN fails
        raise CoolsdError(
            f"graph {graph}: {name}", expected=f"torch's values within {limit:g}", found=f"{error:.3g} away"
        )
    return error

"""Graphs of small and of wide networks, as a build makes them for TensorRT. Imports torch and onnx."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import ml_dtypes
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from coolsd_rt.backends.tensorrt.build import BuildOptions, BuiltEngine, OnProgress, SourceGraph, build_engine
from coolsd_rt.backends.tensorrt.profiles import ProfileSizes, profiles
from coolsd_rt.contract import (
    Floating,
    GraphContract,
    ModelDims,
    condition_contract,
    draft_contract,
    image_contract,
    target_contract,
)
from coolsd_rt.export.graphs import ConditionGraph, DraftGraph, ImageGraph, TargetGraph
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.tensorrt_graph import for_tensorrt
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.models.vq import VQTokenizer
from tests.tiny import DRAFT, LENGTH, SIDE, TARGET, networks

BATCH = 2
DTYPES: dict[str, Floating] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "bfloat16"}
TINY = ModelDims(
    vocab=TARGET.vocab,
    dim=TARGET.dim,
    layers=TARGET.layers,
    heads=TARGET.heads,
    head_dim=TARGET.dim // TARGET.heads,
    prefix=TARGET.prefix,
    tokens=TARGET.grid**2,
    draft_layers=1,
    draft_heads=DRAFT.heads,
    draft_head_dim=DRAFT.dim // DRAFT.heads,
)
# Two layers as wide as LlamaGen-XL's, at its positions for text; its other 34 are the same.
XL = ModelDims(
    vocab=512,
    dim=1280,
    layers=2,
    heads=20,
    head_dim=64,
    prefix=120,
    tokens=1024,
    draft_layers=1,
    draft_heads=20,
    draft_head_dim=64,
)


@dataclass(frozen=True)
class Case:
    """A graph, its contract, and what it has to serve."""

    name: str
    model: onnx.ModelProto
    contract: GraphContract
    sizes: ProfileSizes
    precision: str

    def build(self, options: BuildOptions | None = None, on_progress: OnProgress | None = None) -> BuiltEngine:
        """With TensorRT-RTX."""
        return build_engine(
            SourceGraph(self.name, self.model.SerializeToString(), self.contract, self.precision),
            profiles(self.contract, self.sizes),
            flavour="tensorrt-rtx",
            options=options,
            on_progress=on_progress,
        )


@cache
def case(name: str, precision: str, dims: ModelDims = TINY) -> Case:
    """One graph of a network with random weights, exported once. Do not change it."""
    dtype = DTYPES[precision]
    module, contract = _graph(name, dims, dtype)
    plain = name == "image"
    model = to_onnx(module if plain else module.to(getattr(torch, dtype)), contract)
    if precision == "int8" and not plain:
        quantize(model)
        _scales(model, dtype)
    sizes = ProfileSizes.of(dims, LENGTH, BATCH)
    pinned = for_tensorrt(model, {"T": sizes.capacity}, name=name)
    return Case(name, pinned, contract, sizes, "fp32" if plain else precision)


def _graph(name: str, dims: ModelDims, dtype: Floating) -> tuple[nn.Module, GraphContract]:
    target, draft, image = networks() if dims is TINY else _wide(dims)
    if name == "target":
        return TargetGraph(target), target_contract(dims, dtype)
    if name == "draft":
        return DraftGraph(draft, target), draft_contract(dims, dtype)
    if name == "condition":
        return ConditionGraph(target.cls_embedding), condition_contract(dims, dtype)
    return ImageGraph(image), image_contract(dims, SIDE)


def _wide(dims: ModelDims) -> tuple[LlamaGen, Eagle, VQTokenizer]:
    torch.manual_seed(0)
    grid, ffn = int(dims.tokens**0.5), dims.dim * 14 // 5
    cfg = replace(
        TARGET,
        vocab=dims.vocab,
        dim=dims.dim,
        layers=dims.layers,
        heads=dims.heads,
        ffn=ffn,
        grid=grid,
        prefix=dims.prefix,
    )
    return LlamaGen(cfg).eval(), Eagle(EagleConfig(dims.dim, dims.heads, ffn)).eval(), networks()[2]


def _scales(model: onnx.ModelProto, dtype: Floating) -> None:
    """Scales of the graph's own type: a MatMul of a strongly typed network takes no other."""
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scales") and dtype == "bfloat16":
            values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

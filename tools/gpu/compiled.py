"""TensorRT engines of LlamaGen at its published sizes, with random weights: built here, timed on the GPU.

Knows networks of a size, the exporter and the compiler. Times nothing. Building works without a GPU (TensorRT-RTX);
loading has not been tried on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coolsd_rt.backends.description import Description, dtype_of
from coolsd_rt.backends.tensorrt.build import SourceGraph, build_engine
from coolsd_rt.backends.tensorrt.engine import FILE, TrtEngine, load_engines
from coolsd_rt.backends.tensorrt.package import Flavour
from coolsd_rt.backends.tensorrt.profiles import ProfileSizes, profiles
from coolsd_rt.export.graphs import ConditionGraph, DraftGraph, ImageGraph, TargetGraph
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.tensorrt_graph import for_tensorrt, write
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.models.families import model_dims
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from tools.gpu.sizes import Size, networks_of

_IMAGE: dict[str, Any] = {
    "codebook_dim": 4,
    "channels": 8,
    "multipliers": (1,),
    "z_channels": 8,
    "res_blocks": 1,
    "norm_groups": 4,
}


@dataclass
class Compiled:
    """Engines on a disk, and what their build wrote of them."""

    description: Description
    folder: Path
    flavour: Flavour
    facts: dict[str, Any] = field(default_factory=dict)

    def load(self) -> TrtEngine:
        """On the GPU that is here. Raises CoolsdError without one."""
        return load_engines(self.description, self.facts, self._read, self.flavour, "build it again")

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def compile_size(
    size: Size, flavour: Flavour, precision: str, batch: int, length: int, folder: Path, say: Callable[[str], None]
) -> Compiled:
    """All four graphs of a size. precision: fp16, bf16 or int8. Raises as `build_engine`."""
    dtype = dtype_of(precision, "cuda")
    target, draft = networks_of(size, "cpu")
    image = VQTokenizer(VQConfig(codebook_size=size.vocab, **_IMAGE)).eval()
    description = Description(model_dims(target.cfg, draft.cfg), length, size.grid, dtype, propose=False)
    for network in (target, draft):
        network.to(getattr(torch, dtype))
    modules: dict[str, tuple[nn.Module, str]] = {
        "condition": (ConditionGraph(target.cls_embedding), "fp16" if precision == "int8" else precision),
        "target": (TargetGraph(target), precision),
        "draft": (DraftGraph(draft, target), precision),
        "image": (ImageGraph(image), "fp32"),
    }
    sizes = ProfileSizes.of(description.dims, length, batch)
    out = Compiled(description, folder, flavour)
    for name, (module, kind) in modules.items():
        contract = description.graphs[name].contract
        model = to_onnx(module, contract)
        if kind == "int8":
            quantize(model)
        path = write(for_tensorrt(model, {"T": sizes.capacity}, name=name), folder / f"{name}.onnx")
        built = build_engine(SourceGraph(name, path, contract, kind), profiles(contract, sizes), flavour=flavour)
        (folder / FILE.format(name)).write_bytes(built.data)
        out.facts[name] = built.facts.as_dict()
        say(f"{size.name}: {name} compiled, {built.data.nbytes / 1e6:.0f} MB")
    return out

"""The models of the comparison: the trained demo, and LlamaGen-B and -XL at their true sizes with random weights.

Knows which files and engines each needs, and makes those that are not there. Does not know contenders or a clock.
Random weights cost the same time as trained ones but draw nothing, so that no draft of theirs can be accepted: such a
model speculates at accept lengths of the paper, and every row says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from coolsd_rt.contract import ModelDims
from coolsd_rt.spec import LoadedSpec, Spec, load_spec
from coolsd_rt.store.atomic import free_bytes
from coolsd_rt.store.engine import EngineFolder
from coolsd_rt.store.weights import check_safetensors
from coolsd_rt.workflows.build.run import build, plan, with_precision
from tools.random_model import published, write_pipeline

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


@dataclass(frozen=True)
class Model:
    """One model of the comparison.

    spec: its file; None: random weights of `published` (family, size, codes along a side).
    precisions: engines that are timed. torch: whether eager, compiled and official code are timed: not where an image
    of theirs takes minutes. sizes: images at once. memory, disk: bytes without which it is left out.
    """

    name: str
    title: str
    turns: int
    spec: Path | None = None
    published: tuple[str, str, int] = ("", "", 0)
    precisions: tuple[str, ...] = ("fp32", "int8")
    torch: bool = True
    sizes: tuple[int, ...] = (1,)
    memory: int = 0
    disk: int = 0


MODELS = (
    Model("demo", "The demo", 7, spec=ROOT / "pipelines" / "emoji.yaml", sizes=(1, 2, 4, 8)),
    Model(
        "b",
        "LlamaGen-B, 256 tokens",
        3,
        published=("llamagen-c2i", "B", 16),
        memory=5 * GIB,
        disk=3 * GIB,
    ),
    Model(
        "xl",
        "LlamaGen-XL, 256 tokens",
        2,
        published=("llamagen-t2i", "XL", 16),
        precisions=("int8",),
        torch=False,
        memory=6 * GIB,
        disk=6 * GIB,
    ),
)


@dataclass(frozen=True)
class Ready:
    """A model whose files and engines are there. engines: by precision."""

    model: Model
    loaded: LoadedSpec
    engines: Mapping[str, EngineFolder]

    @property
    def real(self) -> bool:
        """Whether drafts are accepted as the model says, not at fixed rates."""
        return self.loaded.spec.acceptance.rule != "synthetic"


def shortage(model: Model, out: Path) -> str:
    """Return why there is no room for a model here; empty if there is."""
    for what, need, have in (
        ("memory", model.memory, available_memory()),
        ("disk space", model.disk, free_bytes(out)),
    ):
        if have is not None and have < need:
            return f"{need / GIB:.0f} GiB of {what} are needed, {have / GIB:.1f} GiB are free"
    return ""


def available_memory() -> int | None:
    """Return bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached()
    except (AttributeError, OSError, ValueError):
        return None


def _cached() -> int:
    """Bytes of the page cache, which the kernel gives back; 0 where /proc does not say."""
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="ascii", errors="replace").splitlines() if info.is_file() else []
    found = next((line.split()[1] for line in lines if line.startswith("Cached:")), "0")
    return int(found) * 1024 if found.isdecimal() else 0


def prepare(model: Model, out: Path, tell: Callable[[str], None]) -> Ready:
    """Make what is missing of a model's files and engines below `out`. Raises as `build` and `write_pipeline` do.

    tell: called before work that takes a while.
    """
    path = model.spec
    if path is None:
        made = published(*model.published)
        folder = out / "weights"
        path = folder / f"{made.name}.yaml"
        if not path.is_file():  # written last, so that a broken set is written again
            tell(f"{model.name}: random weights")
            path = write_pipeline(folder, made, overwrite=True)
    loaded = with_batch(load_spec(path), max(model.sizes))
    engines = {}
    for precision in model.precisions:
        wanted = plan(with_precision(loaded, precision), out / "engines")
        if any(not stage.cached for stage in wanted.stages):
            tell(f"{model.name}: building {precision}")
        engines[precision] = build(wanted).engine
    return Ready(model, loaded, engines)


def with_batch(loaded: LoadedSpec, images: int) -> LoadedSpec:
    """Return the spec for batches of at least so many images."""
    data = loaded.spec.resolved()
    data["engine"]["max_batch"] = max(images, data["engine"]["max_batch"])
    return replace(loaded, spec=Spec.model_validate(data))


@dataclass(frozen=True)
class Traffic:
    """Bytes that a step of plain decoding reads at least. matrices: once a step. cache: the valid keys and values."""

    matrices: int
    cache: int

    @property
    def bytes(self) -> int:
        """Of both."""
        return self.matrices + self.cache


def traffic(loaded: LoadedSpec, dims: ModelDims, item: int) -> Traffic:
    """Return the bytes of a step for one image, in the middle of it. item: bytes of a weight of a matrix.

    Matrices are those that every step multiplies with: of the layers, and of the head; of an embedding a step reads a
    row. Scales of int8 weights are not counted, nor what a step writes. The cache is float32 in every engine.
    """
    tensors = check_safetensors(loaded.files["target.weights"]).tensors
    inside = [info.shape for name, info in tensors.items() if name.startswith(("layers.", "output."))]
    matrices = sum(prod(shape) for shape in inside if len(shape) == 2) * item
    rows = 2 if loaded.spec.sampling.cfg_scale != 1 else 1
    valid = dims.prefix + dims.tokens / 2
    return Traffic(matrices, round(2 * dims.layers * rows * valid * dims.heads * dims.head_dim * 4))

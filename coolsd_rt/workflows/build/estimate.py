"""Estimates of a build before it starts: bytes on the disk, memory, and time.

Bytes follow from the headers of weights files and the precision: exact for weights, to a few hundred bytes a layer for
the graphs around them. Memory and time are rough: rates measured on one machine (`MEASURED_ON`), at sizes from 0.06 to
800 million weights, with nothing known of this machine's speed or load. Knows headers and configs. Reads no tensor, and
needs neither torch nor onnx. Does not know stages' keys, nor what is cached. The time that TensorRT's compiler takes is
not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from coolsd_rt.backends.description import Description
from coolsd_rt.law import columns_read
from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.families import read_eagle, read_target, read_tokenizer
from coolsd_rt.prompts import conditioner_files
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.store.atomic import free_bytes, no_space
from coolsd_rt.store.fingerprint import KEY_LENGTH
from coolsd_rt.store.hashing import sha256_json
from coolsd_rt.store.weights import check_safetensors

MEASURED_ON = "two cores of a shared server"
BESIDE = 256 << 20  # as `export.external.LARGEST`: from there on equal content is stored once
BLOCKS = (128, 64, 32, 16)  # as `export.quantize`
_WIDTH = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}
_NPY = 128  # header of an array's file

# Bytes of a graph beside its weights: of its own, and of each layer, in whole numbers or with int8 codes.
_GRAPH, _LAYER, _LAYER_INT8, _STEP, _IMAGE = 2_500, 2_900, 4_300, 4_500, 25_000

# Seconds: to start, to trace a graph and each of its layers, to read, quantise, write, hash and try a million weights,
# a million pixels of the image tokenizer, a million distances between codes.
_START, _TRACE, _TRACE_LAYER = 5.0, 4.0, 0.35
_MILLION, _PIXELS, _DISTANCES = 0.035, 700.0, 0.05

# To choose the forms of int8 matrices: bytes of the file that checks products and of the matrices tried, and seconds.
_CHECK, _PRODUCTS, _MEASURING = 84_000, 300 << 20, 6.0

# Memory: of torch, onnx and onnxruntime before a weight is read, and of what they keep of a large graph; bytes a number
# while one tensor is read and written, and while a matrix of a pair is joined, turned and quantised.
_IMPORTS, _KEPT, _READ, _JOINED = 500 << 20, 270 << 20, 7, 27


@dataclass(frozen=True)
class Amount:
    """Of one stage. disk: bytes of its files. memory: bytes at the peak. seconds: of a build of it alone."""

    disk: int
    memory: int
    seconds: float

    def as_dict(self) -> dict[str, float]:
        """JSON data."""
        return {"disk_bytes": self.disk, "memory_bytes": self.memory, "seconds": round(self.seconds, 1)}


def total(amounts: Iterable[Amount]) -> Amount:
    """Of stages that run one after another: files add up, the largest peak counts."""
    each = list(amounts)
    peak = max((a.memory for a in each), default=0)
    return Amount(sum(a.disk for a in each), peak, sum(a.seconds for a in each) + (_START if each else 0.0))


@dataclass(frozen=True)
class MatrixEstimate:
    """[K, N] of a product, `times` times in a graph."""

    rows: int
    columns: int
    times: int = 1

    def bytes(self, item: int, quantised: bool) -> int:
        """Of one of them."""
        block = next((b for b in BLOCKS if self.rows % b == 0), 0)
        if not quantised or not block:
            return self.rows * self.columns * item
        return self.rows * self.columns + self.rows // block * self.columns * item


@dataclass(frozen=True)
class GraphEstimate:
    """One graph's numbers: matrices, and all other weights. structure: bytes of its nodes."""

    matrices: tuple[MatrixEstimate, ...]
    others: int
    layers: int
    structure: int
    largest: int  # numbers of the largest of all

    def amount(self, item: int, quantised: bool) -> Amount:
        # What a quantised matrix is used for n times is stored n times, unless it is beside the graph.
        copies = sum(m.bytes(item, quantised) * (m.times if quantised else 1) for m in self.matrices)
        once = sum(m.bytes(item, quantised) for m in self.matrices)
        rest = self.others * item
        beside = copies + rest > BESIDE
        size = (once if beside else copies) + rest
        numbers = sum(m.rows * m.columns for m in self.matrices) + self.others
        # Beside the graph its file is mapped; in it, it is parsed and copied.
        held = _KEPT + int(1.07 * size) if beside else size * 4
        work = max(_READ * self.largest, _JOINED * max((m.rows * m.columns for m in self.matrices), default=0))
        seconds = _TRACE + _TRACE_LAYER * self.layers + _MILLION * numbers / 1e6
        return Amount(size + self.structure, _IMPORTS + max(held, work), seconds)


@dataclass(frozen=True)
class SpecSizes:
    """The headers of a spec's weights files, as graphs see them."""

    loaded: LoadedSpec
    description: Description

    @cached_property
    def shapes(self) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
        """File's key to tensor name to shape."""
        files = {k: v for k, v in self.loaded.files.items() if k.endswith(".weights")}
        return {k: {n: t.shape for n, t in check_safetensors(v).tensors.items()} for k, v in files.items()}

    @property
    def item(self) -> int:
        return _ITEM[self.description.dtype]

    @property
    def quantised(self) -> bool:
        return self.loaded.spec.engine.precision == "int8"

    def stage(self, name: str) -> Amount:
        """Of a stage by its name. A compiler's stages are as large as the weights; their time is not known."""
        made: Mapping[str, Callable[[], Amount]] = {
            "condition": self._condition, "target": self._target, "draft": self._draft, "image": self._image,
            "weights": self._weights, "prompts": self._prompts, "codes": self._codes, "quantization": self._choice,
        }  # fmt: skip
        if name in made:
            return made[name]()
        source = self.stage(name.rpartition("compile_")[2])
        return Amount(source.disk, 2 * source.memory, 0.0)

    def _table(self, config: DecoderConfig) -> int:
        """Numbers of both RoPE tables."""
        grid = config.rope.kind == "grid"
        positions = config.prefix + (config.rope.grid**2 if grid else config.tokens)
        return positions * config.layer.head_dim

    def _decoder(self, key: str) -> GraphEstimate:
        """The graph of a target, or of a draft that is one."""
        config = read_target(self.loaded.files[key])
        shapes = {n: s for n, s in self.shapes[key].items() if not n.startswith("cls_embedding.")}
        matrices, others = _split(shapes)
        structure = self._structure(config.layers)
        return GraphEstimate(
            matrices, others + self._table(config), config.layers, structure, _largest(shapes.values())
        )

    def _structure(self, layers: int) -> int:
        return _GRAPH + layers * (_LAYER_INT8 if self.quantised else _LAYER)

    def _target(self) -> Amount:
        return self._decoder("target.weights").amount(self.item, self.quantised)

    def _draft(self) -> Amount:
        if self.description.dims.draft_kind == "model":
            return self._decoder("draft.weights").amount(self.item, self.quantised)
        config, target = read_eagle(self.loaded.files["draft.weights"]), self.shapes["target.weights"]
        borrowed = {n: s for n, s in target.items() if n.startswith("output.")}
        if config.vocab is None:
            borrowed |= {n: s for n, s in target.items() if n == "tok_embeddings.weight"}
        shapes = {**self.shapes["draft.weights"], **borrowed}
        (matrices, others), largest = _split(shapes), _largest(shapes.values())
        others += self._table(read_target(self.loaded.files["target.weights"]))
        single = GraphEstimate(matrices, others, config.layers, self._structure(config.layers), largest)
        amounts = [single.amount(self.item, self.quantised)]
        if self.description.propose:
            steps = self.description.draft_length
            repeated = tuple(MatrixEstimate(m.rows, m.columns, steps) for m in matrices)
            structure = single.structure + steps * _STEP
            amounts.append(GraphEstimate(repeated, others, steps, structure, largest).amount(self.item, self.quantised))
        return _together(amounts)

    def _condition(self) -> Amount:
        keys = ["target.weights", *(["draft.weights"] if self.description.dims.draft_kind == "model" else [])]
        shapes = [s for k in keys for n, s in self.shapes[k].items() if n.startswith("cls_embedding.")]
        # What a target learned for no prompt stands in a file of its own.
        numbers = sum(prod(s) for s in shapes) - self._unconditional
        graph = GraphEstimate((), numbers, 0, 500, _largest(shapes)).amount(self.item, False)
        return _together([graph, self._prompts()])

    @property
    def _unconditional(self) -> int:
        return sum(prod(s) for n, s in self.shapes["target.weights"].items() if n == "cls_embedding.uncond_embedding")

    def _prompts(self) -> Amount:
        keys = conditioner_files(self.loaded.spec.condition).values()
        files = sum(self.loaded.files[key].stat().st_size for key in keys)
        return Amount(files + (_NPY + 4 * self._unconditional if self._unconditional else 0), _IMPORTS, 0.0)

    def _codes(self) -> Amount:
        codes = read_tokenizer(self.loaded.files["image.weights"]).codebook_size
        near = columns_read(self.loaded.spec.image.neighbours, codes)
        return Amount(_NPY + 4 * codes * near, _IMPORTS + 8 * codes * min(codes, 4096), codes**2 / 1e6 * _DISTANCES)

    def _image(self) -> Amount:
        config, shapes = read_tokenizer(self.loaded.files["image.weights"]), self.shapes["image.weights"]
        used = ("decoder.", "post_quant_conv.", "quantize.embedding.")
        numbers = sum(prod(s) for n, s in shapes.items() if n.startswith(used))
        graph = GraphEstimate((), numbers, 0, _IMAGE, 0).amount(4, False)
        pixels = self.description.side**2
        whole = 4 * sum(prod(s) for s in shapes.values())
        memory = graph.memory + whole + 12 * 4 * pixels * config.channels  # activations, on both sides of the trial
        widths = config.channels**2 / 128**2
        return _together([Amount(graph.disk, memory, graph.seconds + pixels / 1e6 * _PIXELS * widths), self._codes()])

    def _choice(self) -> Amount:
        """Measuring both forms of every shape of int8 matrix."""
        return Amount(_CHECK, _IMPORTS + _PRODUCTS, _MEASURING)

    @cached_property
    def digest(self) -> str:
        """Changes with the name or shape of any weight, and with nothing else."""
        return sha256_json({k: {n: list(s) for n, s in v.items()} for k, v in self.shapes.items()})[:KEY_LENGTH]

    def _weights(self) -> Amount:
        files = [p for k, p in self.loaded.files.items() if k.endswith(".weights")]
        sizes = [p.stat().st_size for p in files]
        return Amount(sum(sizes), _IMPORTS + max(sizes), sum(sizes) / 1e9 * 4)


def _split(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[MatrixEstimate, ...], int]:
    """Matrices [out, in] of products, and how many numbers there are beside them."""
    products = {n for n, s in shapes.items() if len(s) == 2 and "embedding" not in n and "norm" not in n}
    matrices = tuple(MatrixEstimate(shapes[n][1], shapes[n][0]) for n in sorted(products))
    return matrices, sum(prod(s) for n, s in shapes.items() if n not in products)


def _largest(shapes: Iterable[tuple[int, ...]]) -> int:
    """Numbers of the largest tensor."""
    return max((prod(s) for s in shapes), default=0)


def _together(amounts: Iterable[Amount]) -> Amount:
    """Of parts of one stage."""
    each = list(amounts)
    return Amount(sum(a.disk for a in each), max(a.memory for a in each), sum(a.seconds for a in each))


def check_disk(out: Path, need: int) -> None:
    """Raise CoolsdError if there are not `need` bytes free where a build is to be written."""
    if need and free_bytes(out) < need:
        raise no_space(out, need)

"""Estimates the disk space, memory and time of a build before it starts.

Disk space follows from the headers of weights files and the precision: exact for weights, within a few hundred bytes
per layer for the graphs around them. Memory and time are rough. Their rates were measured on one machine
(`MEASURED_ON`), with 0.06 to 800 million weights, and take no account of the speed or load of the present machine. The
compile time of TensorRT is not included. Knows headers and configs. Reads no tensor, and needs neither torch nor onnx.
Does not know the keys of stages or what is cached.
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
from coolsd_rt.workflows.build.code import COMPILE

MEASURED_ON = "two cores of a shared server"
BESIDE = 16 << 20  # as `export.external.LARGEST`: larger graphs store their weights once, in a separate file
BLOCKS = (128, 64, 32, 16)  # as `export.quantize`
_WIDTH = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}
_NPY = 128  # bytes of the header of a .npy file

# Bytes of a graph without its weights: fixed part, per layer, per layer with int8 weights, per step of `propose`,
# and the image graph.
_GRAPH, _LAYER, _LAYER_INT8, _STEP, _IMAGE = 2_500, 2_900, 4_300, 4_500, 25_000

# Seconds: to start; to trace a graph, and each of its layers; to read, quantise, write, hash and smoke-test a million
# weights; to export the image tokenizer, per million pixels; per million distances between codes.
_START, _TRACE, _TRACE_LAYER = 5.0, 4.0, 0.35
_MILLION, _PIXELS, _DISTANCES = 0.035, 700.0, 0.05

# To choose the forms of int8 matrices: bytes of the file that checks products and of the matrices tried, and seconds.
_CHECK, _PRODUCTS, _MEASURING = 84_000, 300 << 20, 6.0

# Memory in bytes: of torch, onnx and onnxruntime before any weight is read; that these libraries retain for a large
# graph; per number while a tensor is read and written; per number while a matrix is joined, transposed and quantised.
_IMPORTS, _KEPT, _READ, _JOINED = 500 << 20, 270 << 20, 7, 27


@dataclass(frozen=True)
class Amount:
    """The estimated cost of one stage.

    Attributes:
        disk: size of the stage's files, in bytes.
        memory: peak memory, in bytes.
        seconds: wall time of running this stage alone.
    """

    disk: int
    memory: int
    seconds: float

    def as_dict(self) -> dict[str, float]:
        """Return JSON data."""
        return {"disk_bytes": self.disk, "memory_bytes": self.memory, "seconds": round(self.seconds, 1)}


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the cost of stages that run one after another: disk and seconds add up, memory is the largest peak."""
    each = list(amounts)
    peak = max((a.memory for a in each), default=0)
    return Amount(sum(a.disk for a in each), peak, sum(a.seconds for a in each) + (_START if each else 0.0))


@dataclass(frozen=True)
class MatrixEstimate:
    """A weight matrix [K, N] that a graph multiplies by in `times` places."""

    rows: int
    columns: int
    times: int = 1

    def bytes(self, item: int, quantised: bool) -> int:
        """Return the size of one copy in bytes. item: bytes per number. quantised: int8 with one scale per block."""
        block = next((b for b in BLOCKS if self.rows % b == 0), 0)
        if not quantised or not block:
            return self.rows * self.columns * item
        return self.rows * self.columns + self.rows // block * self.columns * item


@dataclass(frozen=True)
class GraphEstimate:
    """The weights of one graph.

    Attributes:
        matrices: weights of matrix products, which int8 precision quantises.
        others: count of all other numbers.
        layers: count of layers, for the time to trace them.
        structure: bytes of the graph's nodes.
    """

    matrices: tuple[MatrixEstimate, ...]
    others: int
    layers: int
    structure: int
    largest: int  # count of numbers in the largest tensor

    def amount(self, item: int, quantised: bool) -> Amount:
        """Return the cost of exporting the graph. item: bytes per number. quantised: whether matrices become int8."""
        # A quantised matrix used n times is stored n times inside the graph, and once in an external file.
        copies = sum(m.bytes(item, quantised) * (m.times if quantised else 1) for m in self.matrices)
        once = sum(m.bytes(item, quantised) for m in self.matrices)
        rest = self.others * item
        beside = copies + rest > BESIDE
        size = (once if beside else copies) + rest
        numbers = sum(m.rows * m.columns for m in self.matrices) + self.others
        # External weights are memory-mapped; weights inside the graph are parsed and copied.
        held = _KEPT + int(1.07 * size) if beside else size * 4
        work = max(_READ * self.largest, _JOINED * max((m.rows * m.columns for m in self.matrices), default=0))
        seconds = _TRACE + _TRACE_LAYER * self.layers + _MILLION * numbers / 1e6
        return Amount(size + self.structure, _IMPORTS + max(held, work), seconds)


@dataclass(frozen=True)
class SpecSizes:
    """The sizes of a spec's stages, computed from the headers of its weights files."""

    loaded: LoadedSpec
    description: Description

    @cached_property
    def shapes(self) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
        """Tensor shapes: file key -> tensor name -> shape."""
        files = {k: v for k, v in self.loaded.files.items() if k.endswith(".weights")}
        return {k: {n: t.shape for n, t in check_safetensors(v).tensors.items()} for k, v in files.items()}

    @property
    def item(self) -> int:
        """Bytes per number in the graphs."""
        return _ITEM[self.description.dtype]

    @property
    def quantised(self) -> bool:
        """Whether the graphs' matrices are int8."""
        return self.loaded.spec.engine.precision == "int8"

    def stage(self, name: str) -> Amount:
        """Return the cost of a stage by its name.

        A `compile_*` stage counts as much disk as the graph that it compiles, and zero seconds, since its time is not
        known.
        """
        made: Mapping[str, Callable[[], Amount]] = {
            "condition": self._condition, "target": self._target, "draft": self._draft, "image": self._image,
            "weights": self._weights, "prompts": self._prompts, "codes": self._codes, "quantization": self._choice,
        }  # fmt: skip
        if name in made:
            return made[name]()
        source = self.stage(name.removeprefix(COMPILE))
        return Amount(source.disk, 2 * source.memory, 0.0)

    def _table(self, config: DecoderConfig) -> int:
        """Count of numbers in both RoPE tables (cosine and sine)."""
        grid = config.rope.kind == "grid"
        positions = config.prefix + (config.rope.grid**2 if grid else config.tokens)
        return positions * config.layer.head_dim

    def _decoder(self, key: str) -> GraphEstimate:
        """Estimate the graph of a target, or of a draft model that is a decoder."""
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
        if (kind := self.description.dims.draft_kind) in ("model", "rows"):
            return self._rows() if kind == "rows" else self._decoder("draft.weights").amount(self.item, self.quantised)
        config, target = read_eagle(self.loaded.files["draft.weights"]), self.shapes["target.weights"]
        borrowed = {n: s for n, s in target.items() if n.startswith("output.")}
        if config.draft_vocab is not None:
            borrowed = {"output.weight": (config.draft_vocab, config.dim)}
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

    def _rows(self) -> Amount:
        target = self.shapes["target.weights"]
        borrowed = {n: s for n, s in target.items() if n.startswith(("output.", "tok_embeddings."))}
        shapes = {**self.shapes["draft.weights"], **borrowed}
        single = GraphEstimate(*_split(shapes), 0, self._structure(1), _largest(shapes.values()))
        return single.amount(self.item, self.quantised)

    def _condition(self) -> Amount:
        keys = ["target.weights", *(["draft.weights"] if self.description.dims.draft_kind == "model" else [])]
        embeds = {
            k: "tok_embeddings." if read_target(self.loaded.files[k]).one_table else "cls_embedding." for k in keys
        }
        shapes = [s for k in keys for n, s in self.shapes[k].items() if n.startswith(embeds[k])]
        # The target's learned unconditional embedding has a separate file.
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
        spec, codes = self.loaded.spec, self.description.dims.vocab
        if spec.writes == "image":
            codes = read_tokenizer(self.loaded.files["image.weights"]).codebook_size
        near = columns_read(spec.neighbours, codes)
        return Amount(_NPY + 4 * codes * near, _IMPORTS + 8 * codes * min(codes, 4096), codes**2 / 1e6 * _DISTANCES)

    def _image(self) -> Amount:
        config, shapes = read_tokenizer(self.loaded.files["image.weights"]), self.shapes["image.weights"]
        used = ("decoder.", "post_quant_conv.", "quantize.embedding.")
        engine = self.loaded.spec.engine
        rewritten = engine.backend == "onnxruntime" and engine.device == "cpu"  # `export.image`: 16 numbers for 9
        doubled = 16 / 9 if rewritten else 1.0
        numbers = int(
            sum(
                prod(s) * (doubled if n.endswith(".upsample.conv.weight") else 1.0)
                for n, s in shapes.items()
                if n.startswith(used)
            )
        )
        graph = GraphEstimate((), numbers, 0, _IMAGE, 0).amount(4, False)
        pixels = self.description.side**2
        whole = 4 * sum(prod(s) for s in shapes.values())
        memory = graph.memory + whole + 12 * 4 * pixels * config.channels  # activations of both sides of the smoke test
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
    """Split tensors into the matrices [out, in] of products and the count of all other numbers."""
    products = {n for n, s in shapes.items() if len(s) == 2 and "embedding" not in n and "norm" not in n}
    matrices = tuple(MatrixEstimate(shapes[n][1], shapes[n][0]) for n in sorted(products))
    return matrices, sum(prod(s) for n, s in shapes.items() if n not in products)


def _largest(shapes: Iterable[tuple[int, ...]]) -> int:
    """Count of numbers in the largest tensor."""
    return max((prod(s) for s in shapes), default=0)


def _together(amounts: Iterable[Amount]) -> Amount:
    """Add up the parts of one stage."""
    each = list(amounts)
    return Amount(sum(a.disk for a in each), max(a.memory for a in each), sum(a.seconds for a in each))


def check_disk(out: Path, need: int) -> None:
    """Raise CoolsdError if fewer than `need` bytes are free on the disk that holds `out`."""
    if need and free_bytes(out) < need:
        raise no_space(out, need)

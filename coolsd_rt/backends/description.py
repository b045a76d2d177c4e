"""What a manifest says of an engine's graphs: sizes, draft length, and every input and output.

The same text is written by a build and read by a backend. Reading it back is strict: each size is in its range, and
the graphs are those that the sizes give. Knows the contract; does not know files or ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, create_model

from coolsd_rt.contract import (
    CONTRACT_VERSION,
    Floating,
    GraphContract,
    ModelDims,
    condition_contract,
    draft_contract,
    image_contract,
    propose_contract,
    target_contract,
)
from coolsd_rt.errors import CoolsdError
from coolsd_rt.limits import BUILT_LENGTH, CACHE_NUMBERS, DIMS, SIDE, TABLE_NUMBERS
from coolsd_rt.models.layout import is_layout
from coolsd_rt.shown import show
from coolsd_rt.store.strict import Strict, difference, validate

NEIGHBOURS_FILE = "neighbours.npy"  # int32 [V, n]: the nearest codes of each code
DATA = ".data"  # behind a graph's file name: its weights, where they are too many to be in it
WEIGHTS = {name: f"{name}.safetensors" for name in ("target", "draft", "image")}  # of an engine that runs networks


def dtype_of(precision: str, device: str) -> Floating:
    """The type of prefix, features and caches at a spec's precision. int8 is of weights alone."""
    plain: dict[str, Floating] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    return plain.get(precision, "float16" if device == "cuda" else "float32")


@dataclass(frozen=True)
class GraphRecord:
    """One graph's file and how it is called."""

    file: str
    contract: GraphContract

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        sides = {"inputs": self.contract.inputs, "outputs": self.contract.outputs}
        specs = {side: [{**asdict(spec), "shape": list(spec.shape)} for spec in of] for side, of in sides.items()}
        return {"file": self.file, **specs}


@dataclass(frozen=True)
class Description:
    """All that a backend has to know before it opens a file. `side` is pixels along one side of an image.

    dtype: of prefix, features and caches. propose: there is a graph of the whole draft, sampling included. forced: the
    id that each image token must have, -1 where free; None if all are.
    """

    dims: ModelDims
    draft_length: int
    side: int
    dtype: Floating = "float32"
    propose: bool = True
    forced: tuple[int, ...] | None = None

    @property
    def graphs(self) -> dict[str, GraphRecord]:
        """Graph name to its file and contract, in the order of an image's way."""
        d, dtype = self.dims, self.dtype
        contracts = {
            "condition": condition_contract(d, dtype),
            "target": target_contract(d, dtype),
            **({"draft": draft_contract(d, dtype)} if d.draft_kind != "none" else {}),
            **({"propose": propose_contract(d, self.draft_length)} if d.draft_kind == "eagle" and self.propose else {}),
            "image": image_contract(d, self.side),
        }
        return {name: GraphRecord(f"{name}.onnx", contract) for name, contract in contracts.items()}

    def as_dict(self) -> dict[str, Any]:
        """JSON data for the manifest's `contract`."""
        return {
            "version": CONTRACT_VERSION,
            "dims": self.dims.as_dict(),
            "draft_length": self.draft_length,
            "side": self.side,
            "dtype": self.dtype,
            "propose": self.propose,
            **({} if self.forced is None else {"forced": list(self.forced)}),
            "graphs": {name: record.as_dict() for name, record in self.graphs.items()},
        }

    @staticmethod
    def from_dict(data: Any, where: str = "the engine's manifest", fix: str = "build the engine again") -> Description:
        """Read it back. where, fix: where it stands and what to type, for the message.

        Raises CoolsdError: of another contract version, a size out of its range, or graphs other than the sizes give.
        """
        version = data.get("version", "none") if isinstance(data, Mapping) else "none"
        if version != CONTRACT_VERSION:
            expected = f"version {CONTRACT_VERSION}"
            raise CoolsdError(f"{where}: contract", expected=expected, found=show(version), fix=fix)
        whole = validate({"contract": data}, _Whole, where, expected="a contract", fix=fix)
        made = whole.contract.description()
        for place, expected, found in _faults(made):
            raise CoolsdError(f"{where}: contract.{place}", expected=expected, found=found, fix=fix)
        # What anybody reads of the graphs is made of the sizes: what stands there has to be the same.
        if odd := difference(made.as_dict()["graphs"], whole.contract.graphs, ("contract", "graphs")):
            place, expected, found = odd
            raise CoolsdError(f"{where}: {place}", expected=f"{expected}, as the sizes give", found=found, fix=fix)
        return made


_Dims = create_model(
    "_Dims",
    __base__=Strict,
    **{name: (Annotated[int, Field(ge=int(ends.low), le=int(ends.high))], ...) for name, ends in DIMS.items()},  # type: ignore[call-overload]
)


class _Contract(Strict):
    """A manifest's `contract` as it stands in the file."""

    version: int
    dims: _Dims
    draft_length: int = Field(ge=int(BUILT_LENGTH.low), le=int(BUILT_LENGTH.high))
    side: int = Field(ge=int(SIDE.low), le=int(SIDE.high))
    dtype: Floating
    propose: bool
    forced: list[Annotated[int, Field(ge=-1, lt=int(DIMS["vocab"].high))]] | None = None
    graphs: dict[str, Any]

    def description(self) -> Description:
        dims = ModelDims(**self.dims.model_dump())
        forced = None if self.forced is None else tuple(self.forced)
        return Description(dims, self.draft_length, self.side, self.dtype, self.propose, forced)


class _Whole(Strict):
    contract: _Contract


def _faults(made: Description) -> Iterator[tuple[str, str, str]]:
    """What no engine has, though each number is in its own range: place, expected, found."""
    d = made.dims
    if made.draft_length > d.tokens:
        yield "draft_length", f"at most the image's {d.tokens} tokens", str(made.draft_length)
    if d.draft_layers and not (d.draft_heads and d.draft_head_dim):
        yield "dims", "heads of a draft that has layers", f"{d.draft_heads} of {d.draft_head_dim}"
    caches = {
        "dims.layers": 2 * d.layers * d.heads * d.head_dim * d.positions,
        "dims.draft_layers": 2 * d.draft_layers * d.draft_heads * d.draft_head_dim * d.positions,
    }
    tables = {
        "dims.vocab": d.vocab * max(d.dim, d.draft_dim, made.draft_length),
        "dims.prefix": d.prefix * max(d.dim + d.draft_dim, d.condition_dim),
    }
    for numbers, most, what in ((caches, CACHE_NUMBERS, "the caches of a row"), (tables, TABLE_NUMBERS, "a table")):
        for place, count in numbers.items():
            if count > most.high:
                yield place, f"{what} of at most {int(most.high)} numbers with the other sizes", str(count)
    if made.forced is not None:
        if len(made.forced) != d.tokens:
            yield "forced", f"{d.tokens} ids, one a token", str(len(made.forced))
        elif (last := max(made.forced)) >= d.vocab:
            yield "forced", f"ids from -1 (free) to {d.vocab - 1}", str(last)
        elif not is_layout(made.forced):
            yield "forced", "one id at each row's end, one behind the last row, or both", show(list(made.forced))

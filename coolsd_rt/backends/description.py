"""The description of an engine's graphs in its manifest: sizes, draft length, and every input and output.

A build writes it and a backend reads it. Reading is strict: each size has to be in its range, and the graphs have to be
those that follow from the sizes. Knows the contract. Does not know files or ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, create_model

from coolsd_rt.contract import (
    CONTRACT_VERSION,
    OPTIONAL_DIMS,
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
DATA = ".data"  # suffix of a graph's file name: the file of its weights, if they are too large for the graph's file
WEIGHTS = {name: f"{name}.safetensors" for name in ("target", "draft", "image")}  # backend torch


def dtype_of(precision: str, device: str) -> Floating:
    """Return the dtype of prefix, features and caches for a spec's precision. int8 concerns weights alone."""
    plain: dict[str, Floating] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    return plain.get(precision, "float16" if device == "cuda" else "float32")


def no_tree() -> CoolsdError:
    """Return the error for a step along a tree on an engine whose graphs know chains alone."""
    fix = "name the tree's widths in the spec (draft.tree) and build again"
    return CoolsdError("a step along a tree", expected="an engine with a tree", found="one without", fix=fix)


def no_images() -> CoolsdError:
    """Return the error for an engine that writes text and is asked for pixels."""
    return CoolsdError("the image graph", expected="an engine that draws images", found="one that writes text")


@dataclass(frozen=True)
class GraphRecord:
    """The file name of a graph and its contract."""

    file: str
    contract: GraphContract

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for the manifest."""
        sides = {"inputs": self.contract.inputs, "outputs": self.contract.outputs}
        specs = {
            side: [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in of]
            for side, of in sides.items()
        }
        return {"file": self.file, **specs}


@dataclass(frozen=True)
class Description:
    """Everything a backend has to know before it opens a file.

    dims: sizes of the contract.
    draft_length: draft length of the spec, for which `propose` is compiled.
    side: pixels along one side of an image; 0: the engine writes text, and has no image graph.
    dtype: type of prefix, features and caches.
    propose: whether there is a graph of all draft steps with their sampling.
    forced: the id that each image token must have, -1 where it is free; None if all are free.
    tree: whether the steps of target and draft take positions that branch.
    """

    dims: ModelDims
    draft_length: int
    side: int
    dtype: Floating = "float32"
    propose: bool = True
    forced: tuple[int, ...] | None = None
    tree: bool = False

    @property
    def graphs(self) -> dict[str, GraphRecord]:
        """File and contract of each graph by name, in the order in which an image passes them."""
        d, dtype = self.dims, self.dtype
        contracts = {
            "condition": condition_contract(d, dtype),
            "target": target_contract(d, dtype, self.tree),
            **({"draft": draft_contract(d, dtype, self.tree)} if d.draft_kind != "none" else {}),
            **({"propose": propose_contract(d, self.draft_length)} if d.draft_kind == "eagle" and self.propose else {}),
            **({"image": image_contract(d, self.side)} if self.side else {}),
        }
        return {name: GraphRecord(f"{name}.onnx", contract) for name, contract in contracts.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for the manifest's `contract`."""
        return {
            "version": CONTRACT_VERSION,
            "dims": self.dims.as_dict(),
            "draft_length": self.draft_length,
            "side": self.side,
            "dtype": self.dtype,
            "propose": self.propose,
            **({} if self.forced is None else {"forced": list(self.forced)}),
            **({"tree": True} if self.tree else {}),
            "graphs": {name: record.as_dict() for name, record in self.graphs.items()},
        }

    @staticmethod
    def from_dict(data: Any, where: str = "the engine's manifest", fix: str = "build the engine again") -> Description:
        """Read a description from JSON data.

        where: place of the data, for errors.
        fix: what to type, for errors.

        Raises CoolsdError: another contract version, a size out of its range, or graphs that do not follow from the
        sizes.
        """
        version = data.get("version", "none") if isinstance(data, Mapping) else "none"
        if version != CONTRACT_VERSION:
            expected = f"version {CONTRACT_VERSION}"
            raise CoolsdError(f"{where}: contract", expected=expected, found=show(version), fix=fix)
        whole = validate({"contract": data}, _Whole, where, expected="a contract", fix=fix)
        made = whole.contract.description()
        for place, expected, found in (*_faults(made), *_tree_faults(made), *_row_faults(made)):
            raise CoolsdError(f"{where}: contract.{place}", expected=expected, found=found, fix=fix)
        # Readers compute the graphs from the sizes, so the stored graphs have to be equal to these.
        if odd := difference(made.as_dict()["graphs"], whole.contract.graphs, ("contract", "graphs")):
            place, expected, found = odd
            raise CoolsdError(f"{where}: {place}", expected=f"{expected}, as the sizes give", found=found, fix=fix)
        return made


_Dims = create_model(
    "_Dims",
    __base__=Strict,
    **{  # type: ignore[call-overload]
        name: (Annotated[int, Field(ge=int(ends.low), le=int(ends.high))], 0 if name in OPTIONAL_DIMS else ...)
        for name, ends in DIMS.items()
    },
)


class _Contract(Strict):
    """The manifest's `contract` as stored in the file."""

    version: int
    dims: _Dims
    draft_length: int = Field(ge=int(BUILT_LENGTH.low), le=int(BUILT_LENGTH.high))
    side: int = Field(ge=int(SIDE.low), le=int(SIDE.high))
    dtype: Floating
    propose: bool
    forced: list[Annotated[int, Field(ge=-1, lt=int(DIMS["vocab"].high))]] | None = None
    tree: bool = False
    graphs: dict[str, Any]

    def description(self) -> Description:
        dims = ModelDims(**self.dims.model_dump())
        forced = None if self.forced is None else tuple(self.forced)
        return Description(dims, self.draft_length, self.side, self.dtype, self.propose, forced, self.tree)


class _Whole(Strict):
    contract: _Contract


def _faults(made: Description) -> Iterator[tuple[str, str, str]]:
    """Yield combinations of sizes that no engine has, though each number is in its range: place, expected, found."""
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


def _tree_faults(made: Description) -> Iterator[tuple[str, str, str]]:
    """Yield, as `_faults`, what a tree does not go with."""
    if made.tree and made.dims.draft_kind != "eagle":
        yield "tree", "an EAGLE head with a tree", f"the draft {made.dims.draft_kind}"
    if made.tree and made.propose:
        yield "tree", "draft steps in single calls with a tree", "the graph propose"


def _row_faults(made: Description) -> Iterator[tuple[str, str, str]]:
    """Yield, as `_faults`, sizes that no row head has."""
    d = made.dims
    if bool(d.row) != bool(d.ahead) or d.ahead > d.row or (d.row and d.draft_layers):
        yield "dims", "row and ahead of a row head without layers, ahead at most row", f"{d.row} and {d.ahead}"
    if d.row and made.draft_length > d.row:
        yield "draft_length", f"at most the row's {d.row} tokens", str(made.draft_length)

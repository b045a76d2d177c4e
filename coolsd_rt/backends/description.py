"""What a manifest says of an engine's graphs: sizes, draft length, and every input and output.

The same text is written by a build and read by a backend. Knows the contract; does not know files or ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

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
        return {"file": self.file, **asdict(self.contract)}


@dataclass(frozen=True)
class Description:
    """All that a backend has to know before it opens a file. `side` is pixels along one side of a picture.

    dtype: of prefix, features and caches. fused: there is a graph of the whole draft, sampling included. forced: the id
    that each image token must have, -1 where free; None if all are.
    """

    dims: ModelDims
    draft_length: int
    side: int
    dtype: Floating = "float32"
    fused: bool = True
    forced: tuple[int, ...] | None = None

    @property
    def graphs(self) -> dict[str, GraphRecord]:
        """Graph name to its file and contract, in the order of a picture's way."""
        d, dtype = self.dims, self.dtype
        contracts = {
            "condition": condition_contract(d, dtype),
            "target": target_contract(d, dtype),
            **({"draft": draft_contract(d, dtype)} if d.draft_kind != "none" else {}),
            **({"propose": propose_contract(d, self.draft_length)} if d.draft_kind == "eagle" and self.fused else {}),
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
            "fused": self.fused,
            **({} if self.forced is None else {"forced": list(self.forced)}),
            "graphs": {name: record.as_dict() for name, record in self.graphs.items()},
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Description:
        """Read it back. Raises CoolsdError if it is of another contract version, or not one."""
        if data.get("version") != CONTRACT_VERSION:
            raise CoolsdError(
                "the engine's contract",
                expected=f"version {CONTRACT_VERSION}",
                found=str(data.get("version", "none")),
                fix="build the engine again",
            )
        try:
            dims = ModelDims.from_dict(data["dims"])
            if data["dtype"] not in get_args(Floating):
                raise ValueError(f"dtype {data['dtype']!r}")
            dtype = cast(Floating, data["dtype"])
            forced = tuple(int(i) for i in data["forced"]) if "forced" in data else None
            side, fused = int(data["side"]), bool(data["fused"])
            return Description(dims, int(data["draft_length"]), side, dtype, fused, forced)
        except (KeyError, TypeError, ValueError) as error:
            found = f"{type(error).__name__}: {error}"
            raise CoolsdError(
                "the engine's contract", expected="sizes of every model", found=found, fix="build the engine again"
            ) from error

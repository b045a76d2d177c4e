"""Optimisation profiles: the sizes that a TensorRT engine of a graph of the contract is compiled for.

Knows the contract's dimension names. Does not know TensorRT. T is one number, because the KV update layer needs a
static capacity; S is split into the ranges that a loop uses, each tuned for its work. Legend as in
`coolsd_rt.contract`.

R begins at 2: TensorRT-RTX 1.7.1 finds no kernel for the attention of a single row with S > 1 unless it may decompose
the attention, and then it also gives up the kernel that reads a cache in place at S = 1. One row is run as two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coolsd_rt.contract import GraphContract, ModelDims, TensorSpec
from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.state import capacity

ALIGN = 32  # cache rows; capacities are multiples of it
LEAST_ROWS = 2
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ProfileSizes:
    """The sizes an engine has to serve.

    capacity: T.
    rows: largest R (2 per image under CFG).
    length: L.
    prefix: W.
    images: largest M.
    """

    capacity: int
    rows: int
    length: int
    prefix: int
    images: int

    @staticmethod
    def of(dims: ModelDims, length: int, max_batch: int) -> ProfileSizes:
        """Return the sizes for `max_batch` images under CFG.

        The capacity has room for positions that a loop with pacing writes past the end of an image.
        """
        room = -(-capacity(dims, length, paced=True) // ALIGN) * ALIGN
        return ProfileSizes(room, max(LEAST_ROWS, 2 * max_batch), length, dims.prefix, max_batch)


@dataclass(frozen=True)
class ProfileRange:
    """The least and the largest size of one dimension, and the size it is tuned for."""

    least: int
    best: int
    most: int

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.least <= size <= self.most


@dataclass(frozen=True)
class Profile:
    """A range for each dynamic dimension of a graph. `fixed` holds T, which is static."""

    name: str
    ranges: Mapping[str, ProfileRange]
    fixed: Mapping[str, int]

    def shapes(self, spec: TensorSpec) -> tuple[Shape, Shape, Shape]:
        """Return the (least, best, most) shapes of a tensor."""
        return self._shape(spec, "least"), self._shape(spec, "best"), self._shape(spec, "most")

    def _shape(self, spec: TensorSpec, end: str) -> Shape:
        return tuple(self._size(n, end) if isinstance(n, str) else n for n in spec.shape)

    def _size(self, name: str, end: str) -> int:
        return self.fixed[name] if name in self.fixed else int(getattr(self.ranges[name], end))

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Return whether these sizes are in range. Dimensions that the graph does not have are ignored."""
        return all(sizes[name] in span for name, span in self.ranges.items())

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for the manifest."""
        return {"name": self.name, "ranges": {n: asdict(r) for n, r in self.ranges.items()}, "fixed": dict(self.fixed)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Profile:
        """Read a profile from JSON data. Raises KeyError, TypeError or ValueError if the data is not a profile."""
        ranges = {
            str(n): ProfileRange(*(int(r[k]) for k in ("least", "best", "most"))) for n, r in data["ranges"].items()
        }
        return Profile(str(data["name"]), ranges, {str(n): int(v) for n, v in data["fixed"].items()})


def profiles(contract: GraphContract, sizes: ProfileSizes) -> tuple[Profile, ...]:
    """Return all profiles of a graph: for one position, for verification, for the prefill; or one if it has no S.

    Raises CoolsdError: a dimension of the contract that has no size here.
    """
    names = {n for spec in contract.inputs for n in spec.shape if isinstance(n, str)}
    if odd := sorted(names - {"R", "S", "T", "M"}):
        raise CoolsdError("a graph for TensorRT", expected="the dimensions R, S, T and M", found=odd[0])
    least = LEAST_ROWS if "T" in names else 1
    shared = {"R": ProfileRange(least, min(2, sizes.rows), sizes.rows), "M": ProfileRange(1, 1, sizes.images)}
    ranges = {name: span for name, span in shared.items() if name in names}
    fixed = {"T": sizes.capacity} if "T" in names else {}
    if "S" not in names:
        return (Profile("whole", ranges, fixed),)
    return tuple(Profile(name, {**ranges, "S": span}, fixed) for name, span in _steps(sizes))


def _steps(sizes: ProfileSizes) -> list[tuple[str, ProfileRange]]:
    """Return the ranges of S: 1, up to L + 1, up to W.

    Together they cover 1..max(L + 1, W); empty ranges are left out.
    """
    found = [("step", ProfileRange(1, 1, 1))]
    most = sizes.length + 1
    if most > 1:
        found.append(("verify", ProfileRange(2, most, most)))
    if sizes.prefix > most:
        found.append(("prefill", ProfileRange(most + 1, sizes.prefix, sizes.prefix)))
    return found


def choose(known: Sequence[Profile], sizes: Mapping[str, int]) -> int | None:
    """Return the index of the profile that fits these sizes; None if there is none."""
    return next((i for i, profile in enumerate(known) if profile.fits(sizes)), None)


def parts(known: Sequence[Profile], sizes: Mapping[str, int]) -> list[int]:
    """Split a step's S into sizes that have a profile, the largest first; the results of a step do not depend on this.

    Raises CoolsdError: no profile serves so many rows.
    """
    if choose(known, sizes) is not None:
        return [sizes["S"]]
    spans = [p.ranges["S"] for p in known if p.fits({**sizes, "S": p.ranges["S"].least})]
    if not spans:
        most = max(p.ranges["R"].most for p in known)
        raise CoolsdError(
            "a step",
            expected=f"at most {most} rows",
            found=f"{sizes['R']} rows",
            fix="build with a larger engine.max_batch",
        )
    found: list[int] = []
    rest = sizes["S"]
    while rest:
        found.append(max(min(rest, span.most) for span in spans if span.least <= rest))
        rest -= found[-1]
    return found

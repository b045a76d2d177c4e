"""A session on ONNX Runtime: steps of an engine's graphs over rows whose caches are bound in place.

On a GPU the caches stay on the device, and logits are copied to the host at each step; this has not been run on a GPU
yet. Knows sessions of the contract and NumPy. Does not know the mathematics of the loop, nor torch or onnx. Graph calls
and their bound memory are in `graph`. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Bools, Floats32, Ints
from coolsd_rt.backends.description import Description, no_tree
from coolsd_rt.backends.onnxruntime.caches import BUCKET, Caches, OrtMemory
from coolsd_rt.backends.onnxruntime.graph import OrtGraph, OrtSteps, along_a_chain
from coolsd_rt.contract import cache_names
from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.mates import mates


class OrtSession:
    """`runtime.interface.Session` on ONNX Runtime.

    The cost of a step grows with the capacity of its caches, so they start small and grow in buckets as positions are
    needed; `capacity` is the upper limit. If prefixes can be cut (`ModelDims.cut`), whole buckets of padding that all
    rows share are not stored: `_base` is the first position that has a cache row. Callers count positions from 0.
    """

    def __init__(
        self,
        description: Description,
        graphs: Mapping[str, OrtGraph],
        prefix: Floats32,
        capacity: int,
        start: Ints | None,
        even_rows: bool = False,
    ) -> None:
        d = self.dims = description.dims
        self._description, self._graphs, self._even_rows = description, graphs, even_rows
        self._rows, device = len(prefix), graphs["target"].device
        self._length = description.draft_length
        self._prefix = np.asarray(prefix)
        self._starts = np.zeros(self._rows, np.int64) if start is None else np.array(start, np.int64)
        self._base = self._least_base()
        rows, dtype = self._rows + self._spare, description.dtype
        self._target_caches = Caches(cache_names(d.layers), (rows, d.heads, d.head_dim), capacity, dtype, device)
        sizes = (rows, d.draft_heads, d.draft_head_dim)
        self._draft_caches = Caches(cache_names(d.draft_layers), sizes, capacity, dtype, device)
        self._bind()

    def _bind(self) -> None:
        """Make the calls of the graphs for the present rows."""
        d, graphs, dtype = self.dims, self._graphs, self._description.dtype
        device = graphs["target"].device
        prefix = self._with_spare(self._prefix[:, self._base :])
        starts = self._with_spare(self._starts - self._base)
        padding = {"start": OrtMemory.of(starts, device)} if d.padded else {}
        shared = {"prefix": OrtMemory.of(np.ascontiguousarray(prefix[..., : d.dim], dtype), device), **padding}
        self._target = OrtSteps(graphs["target"], self._target_caches, shared)
        own = shared
        if d.draft_dim:
            own = {**shared, "prefix": OrtMemory.of(np.ascontiguousarray(prefix[..., d.dim :], dtype), device)}
        self._own, self._drafting = own, dict[str, OrtSteps]()

    def _least_base(self) -> int:
        """Return the first position that needs a cache row, a multiple of a bucket."""
        return int(self._starts.min(initial=self.dims.prefix)) // BUCKET * BUCKET if self.dims.cut else 0

    def _steps(self, name: str) -> OrtSteps:
        """Return the calls of one of the draft's graphs, which is loaded now if it was not used before."""
        if name not in self._drafting:
            self._drafting[name] = OrtSteps(self._graphs[name], self._draft_caches, self._own)
        return self._drafting[name]

    @property
    def _width(self) -> int:
        """Number of prefix positions that the graphs are given."""
        return self.dims.prefix - self._base

    @property
    def _spare(self) -> int:
        """Number of copies of the last row, whose outputs are dropped."""
        return self._rows % 2 if self._even_rows else 0

    def take(self, rows: Ints, other: Session | None = None) -> None:
        """Keep `rows` int64 of this session and, counted on, of `other`, with their caches, in this order.

        other: a session of the same engine, which is not used any more. Raises TypeError for one of another kind.
        """
        own, spare, sessions = self._rows, self._spare, mates(self, other)
        self._prefix = np.concatenate([session._prefix for session in sessions])[rows]
        self._starts = np.concatenate([session._starts for session in sessions])[rows]
        # Caches have the spare row too: the other's rows begin behind it, and a new spare is a copy of the last row.
        self._rows = len(rows)
        kept = [int(row) + (spare if row >= own else 0) for row in rows]
        kept += kept[-1:] * self._spare
        base = min(session._base for session in sessions)  # rises never: it would copy the caches of all rows
        shifts = [session._base - base for session in sessions]
        for name in ("_target_caches", "_draft_caches"):
            getattr(self, name).take(kept, *(getattr(session, name) for session in sessions[1:]), shifts=shifts)
        self._base = base
        self._bind()

    @property
    def propose_length(self) -> int:
        """Draft length of the graph `propose`; 0 if the engine has none.

        It is also 0 for an odd number of rows, since the graph needs pairs of rows.
        """
        return 0 if self._rows % 2 or "propose" not in self._graphs else self._length

    def asarray(self, data: Any, dtype: str) -> NDArray[Any]:
        """Return host data as a NumPy array of this dtype."""
        return np.asarray(data, dtype=dtype)

    def target(self, ids: Ints, pos: Ints) -> tuple[Floats32, Floats32]:
        """Step the target over ids int64 [R, S] from pos int64 [R] on: logits float32 [R, S, V], features [R, S, C]."""
        return self._step(self._target, ids, pos, **self._along_a_chain(ids))

    def target_tree(self, ids: Ints, pos: Ints, depth: Ints, seen: Bools) -> tuple[Floats32, Floats32]:
        """Step the target as `target` does, along the tree of depth int64 [R, S] and seen bool [R, S, S].

        Raises CoolsdError: an engine without a tree.
        """
        self._check_tree()
        return self._step(self._target, ids, pos, depth=depth, seen=seen)

    def draft(self, ids: Ints, features: Floats32 | None, pos: Ints) -> tuple[Floats32, Floats32]:
        """Step the draft model over ids int64 [R, S] from pos int64 [R] on, with features [R, S, C] for an EAGLE head.

        Returns logits float32 [R, S, V] and features [R, S, C]. Raises CoolsdError: an engine without a draft model.
        """
        if "draft" not in self._graphs:
            raise CoolsdError(
                "a draft step", expected="an engine with a draft model", found="an engine built without one"
            )
        given = {} if features is None else {"features_in": features}
        return self._step(self._steps("draft"), ids, pos, **given, **self._along_a_chain(ids))

    def draft_row(
        self, ids: Ints, features: Floats32, end_ids: Ints, end_features: Floats32, first_below: Ints
    ) -> Floats32:
        """Step the row head: logits float32 [R, S, V] of all drafts of a round. Arguments: `contract.row_contract`."""
        names = [spec.name for spec in self._graphs["draft"].contract.inputs]
        given = (self._with_spare(x) for x in (ids, features, end_ids, end_features, first_below))
        step = self._steps("draft").at({"R": self._rows + self._spare, "S": ids.shape[1]}, 1)
        out = step(**dict(zip(names, given, strict=True)))
        return out["logits"][: self._rows]

    def draft_tree(
        self, ids: Ints, features: Floats32, pos: Ints, depth: Ints, seen: Bools
    ) -> tuple[Floats32, Floats32]:
        """Step the EAGLE head as `draft` does, along the tree of depth int64 [R, S] and seen bool [R, S, S].

        Raises CoolsdError: an engine without a tree.
        """
        self._check_tree()
        return self._step(self._steps("draft"), ids, pos, features_in=features, depth=depth, seen=seen)

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        """Move the target's cache rows of accepted paths to where a chain of the same tokens has them.

        pos int64 [R], path int64 [R, D], count int64 [R]: as in `moves_of`.
        """
        from coolsd_rt.backends.moves import moves_of  # a start without trees does not pay for them

        if not self._target_caches.move(*moves_of(pos - self._base, path, count)):
            self._bind()

    def _check_tree(self) -> None:
        if not self._description.tree:
            raise no_tree()

    def _along_a_chain(self, ids: Ints) -> Mapping[str, NDArray[Any]]:
        """Return the inputs by which the graphs of an engine with a tree step along a chain."""
        return along_a_chain(*ids.shape) if self._description.tree else {}

    def _step(self, steps: OrtSteps, ids: Ints, pos: Ints, **others: NDArray[Any]) -> tuple[Floats32, Floats32]:
        """Return logits [R, S, V] and features [R, S, C] of a step over S positions of every row."""
        size, pos = ids.shape[1], pos - self._base
        step = steps.at({"R": self._rows + self._spare, "S": size, "P": self._width}, int(pos.max()) + size)
        given: dict[str, NDArray[Any]] = {"ids": ids, "pos": pos, **others}
        out = step(**{name: self._with_spare(x) for name, x in given.items()})
        return out["logits"][: self._rows], out["features"][: self._rows]

    def _with_spare(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([x, x[-1:]]) if self._spare else x

    def propose(
        self,
        ids: Ints,
        features: Floats32,
        pos: Ints,
        count: Ints,
        uniforms: Floats32,
        scale: Floats32,
        temperature: float,
        top_k: int,
    ) -> tuple[Ints, Floats32]:
        """Draft with all draft steps in one graph: tokens int64 [M, L] and their distributions float32 [M, L, V].

        ids int64 [R, S], features [R, S, C]: the newly accepted positions, of which the first `count` int64 [R] are
        valid.
        pos: int64 [R], the first of them.
        uniforms, scale: float32 [M, L].

        Raises CoolsdError: no graph `propose`, or an odd number of rows.
        """
        if not self.propose_length:
            expected = "an EAGLE head, and rows in pairs"
            raise CoolsdError("the graph propose", expected=expected, found=f"{self._rows} rows")
        size, pos = ids.shape[1], pos - self._base
        sizes = {"R": self._rows, "M": self._rows // 2, "S": size, "P": self._width}
        step = self._steps("propose").at(sizes, int(pos.max()) + size)
        filters = {"temperature": temperature, "top_k": top_k}
        out = step(ids=ids, features_in=features, pos=pos, count=count, uniforms=uniforms, scale=scale, **filters)
        return out["tokens"], out["probs"]

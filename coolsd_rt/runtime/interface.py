"""The protocols between the decoding loop and an engine.

ONNX Runtime, eager PyTorch and a ten-line fake implement them.

Each session uses one array-API namespace for its arguments and results: NumPy for ONNX Runtime, torch for the eager
reference. Knows shapes and dtypes. Does not know backends. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from coolsd_rt.arrays import Array, Ints
from coolsd_rt.contract import ModelDims


class Session(Protocol):
    """The models and their caches for one batch of images. Used for one batch only.

    Caches start as zeros. A step at `pos` overwrites the cache from there on, so rollback is a smaller `pos`. Positions
    after the last RoPE row are never requested as valid ones; padding may lie there, and its results are discarded.
    """

    @property
    def dims(self) -> ModelDims:
        """The sizes of the models."""
        ...

    def asarray(self, data: Any, dtype: str) -> Array:
        """Copy host data to an array of this session. dtype: "int64", "float32" or "bool".

        Also "float64" if a caller passes uniforms of that precision; the loop's own uniforms are float32.
        """
        ...

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        """Run one step of the target.

        ids: int64 [R, S]. pos: int64 [R], the position of each row's first id. Returns logits float32 [R, S, V] and
        features float32 [R, S, C].
        """
        ...

    def draft(self, ids: Array, features: Array | None, pos: Array) -> tuple[Array, Array]:
        """Run one step of the draft.

        ids: int64 [R, S]. features: float32 [R, S, C] for an EAGLE head, None for an independent draft model. pos:
        int64 [R]. Returns logits and features as `target` does; the features of an independent draft model have no
        meaning.
        """
        ...


@runtime_checkable
class RowSession(Session, Protocol):
    """A `Session` whose rows may change between two rounds: images leave it, and those of another session enter."""

    def take(self, rows: Ints, other: Session | None = None) -> None:
        """Keep `rows` of this session and, counted on from its last, of `other`, in this order.

        rows: int64 [R'] on the host, at least one. Each row keeps its prefix and its caches. other: a session of the
        same engine, which is not used any more.
        """
        ...


@runtime_checkable
class RowDraftSession(Session, Protocol):
    """A `Session` whose draft is a row head: one step, without a cache, gives the logits of all drafts of a round."""

    def draft_row(self, ids: Array, features: Array, end_ids: Array, end_features: Array, first_below: Array) -> Array:
        """Run one step of the row head. For the arguments see `contract.row_contract`.

        Returns logits float32 [R, S, V] of S drafts.
        """
        ...


@runtime_checkable
class TreeSession(Session, Protocol):
    """A `Session` whose steps take trees of tokens (`coolsd_rt.runtime.trees`).

    A step position attends to the cache before `pos` and to what `seen` has of the step itself. Its row of the cache is
    `pos` plus its place in the step; its rotary and embedding position is `pos` plus its depth. With the depths 0, 1,
    2, .. and the lower triangle as `seen` a step is one of `target`, or `draft`.
    """

    def target_tree(self, ids: Array, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
        """Run one step of the target over the pending token and the nodes of a tree.

        ids: int64 [R, S]. pos: int64 [R], the position of each row's first id. depth: int64 [R, S]. seen: bool [R, S,
        S], whether step position s attends to step position j. Returns as `target`.
        """
        ...

    def draft_tree(self, ids: Array, features: Array, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
        """Run one step of an EAGLE head over the nodes of a tree, without the root.

        Arguments and results as in `draft` and `target_tree`; the depth of a first node is 0 here.
        """
        ...

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        """Move rows of the target's cache to where a chain of the accepted nodes would have left them.

        In each row r, what is in cache row pos[r] + 1 + path[r, j] goes to pos[r] + 1 + j, for all j < count[r]. On the
        host: pos int64 [R]; path int64 [R, l], nodes, increasing along a row; count int64 [R], 0..l. Entries of `path`
        from `count` on have no meaning. Called after `target_tree` at the same `pos`, before any other step.
        """
        ...


@runtime_checkable
class ProposingSession(Session, Protocol):
    """A `Session` with the graph `propose`: all draft steps of an EAGLE head and their sampling in one call."""

    @property
    def propose_length(self) -> int:
        """Draft length that `propose` was compiled for; 0 if the graph cannot serve this batch."""
        ...

    def propose(
        self,
        ids: Array,
        features: Array,
        pos: Array,
        count: Array,
        uniforms: Array,
        scale: Array,
        temperature: float,
        top_k: int,
    ) -> tuple[Array, Array]:
        """Run L draft steps and their sampling in one call. For the arguments see `contract.propose_contract`.

        Returns tokens int64 [M, L] and probabilities float32 [M, L, V].
        """
        ...


def proposing(session: Session, length: int) -> ProposingSession | None:
    """Return `session` if it has a `propose` graph of draft length `length`, else None."""
    return session if isinstance(session, ProposingSession) and session.propose_length == length else None


class Engine(Protocol):
    """A loaded engine."""

    @property
    def dims(self) -> ModelDims:
        """The sizes of the models."""
        ...

    def encode_condition(self, condition: Array) -> Array:
        """Return prefix embeddings [R, W, C].

        condition: ids int64 [R, W], or text encoder features float32 [R, W, E].
        """
        ...

    def open(self, prefix: Array, capacity: int, start: Array | None = None) -> Session:
        """Open a session with empty caches for R rows and at least `capacity` positions (the backend may round up).

        prefix: [R, W, C] from `encode_condition`. start: int64 [R] on the host, the first position of each row's
        prefix, for models whose prefixes are padded on the left (`dims.padded`); None means 0.
        """
        ...

    def decode_images(self, codes: Array) -> Array:
        """Decode codes int64 [M, tokens] to RGB uint8 [M, F, F, 3], a NumPy array."""
        ...


@runtime_checkable
class LateEngine(Protocol):
    """An `Engine` that may load a graph later than the others (`backends.LoadOptions.later`)."""

    def load_graph(self, name: str) -> None:
        """Load the graph now, unless it is loaded. Raises CoolsdError if its file or the graph is broken."""
        ...

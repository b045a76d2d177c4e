"""The interface between the decoding loop and an engine. A fake model of ten lines satisfies it; so do ONNX Runtime and
eager PyTorch.

Arrays are of one array-API namespace per session (NumPy for ONNX Runtime, torch for the eager reference): what a
session takes and returns is of its own namespace. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from coolsd_rt.arrays import Array
from coolsd_rt.contract import ModelDims


class Session(Protocol):
    """The models with their caches for one batch of images. Closed after its images are done.

    Caches start as zeros. Writing at `pos` overwrites whatever stood there, so rollback is a smaller `pos`.
    Positions past the last RoPE row are never asked for as valid ones; padding there is allowed and discarded.
    """

    @property
    def dims(self) -> ModelDims: ...

    def asarray(self, data: Any, dtype: str) -> Array:
        """Host data -> this session's array type. dtype: "int64" | "float32" | "bool".

        "float64" too where a caller injects uniforms of that precision; the loop's own are float32.
        """
        ...

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        """ids int64 [R, S], pos int64 [R] -> logits float32 [R, S, V], features float32 [R, S, C]."""
        ...

    def draft(self, ids: Array, features: Array | None, pos: Array) -> tuple[Array, Array]:
        """ids int64 [R, S], features float32 [R, S, C], pos int64 [R] -> logits, features as above.

        An independent draft model is given no features (None), and its own mean nothing to anybody.
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
        """L draft steps and their sampling at once (`contract.propose_contract`): tokens [M, L], probs [M, L, V]."""
        ...


def proposing(session: Session, length: int) -> ProposingSession | None:
    """`session` if its `propose` gives `length` drafts, else None."""
    return session if isinstance(session, ProposingSession) and session.propose_length == length else None


class Engine(Protocol):
    """A loaded build."""

    @property
    def dims(self) -> ModelDims: ...

    def encode_condition(self, condition: Array) -> Array:
        """condition int64 [R, W], or features of a text encoder float32 [R, W, E] -> prefix embeddings [R, W, C]."""
        ...

    def open(self, prefix: Array, capacity: int, start: Array | None = None) -> Session:
        """Fresh caches for R rows and at least `capacity` positions (the backend may round up to a bucket).

        start: int64 [R], host, the first position of each row's own prefix, of models that pad it on the left
        (`dims.padded`); None is 0.
        """
        ...

    def decode_images(self, codes: Array) -> Array:
        """codes int64 [M, tokens] -> RGB uint8 [M, F, F, 3] on the host (NumPy)."""
        ...

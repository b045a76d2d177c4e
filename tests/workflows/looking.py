"""Which loop draws, seen from below: by the operators that torch is given, whatever a result says of itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts torch's operators while it is entered: a device's round begins with one `coolsd::window`, a step of a
    network with an embedding, and the host's loop launches no operator of `coolsd::`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def device_rounds(self) -> int:
        return self._seen["coolsd.window.default"]

    @property
    def steps(self) -> int:
        """Of the networks, at least."""
        return self._seen["aten.embedding.default"]

    @property
    def loop(self) -> str:
        """Which loop drew what was drawn."""
        assert self.steps > 0
        return "device" if self.device_rounds else "host"

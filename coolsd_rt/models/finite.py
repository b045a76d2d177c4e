"""Detect NaN and infinite numbers in weights: they would give images of noise, without an error.

Knows torch. Does not know networks, or how files are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from coolsd_rt.errors import UserError

_NAMED = 4  # most tensors that an error names
_CHUNK = 1 << 22  # numbers counted at once


def non_finite(value: Tensor) -> int:
    """Return how many numbers of a floating tensor are NaN or infinite. Uses little extra memory."""
    if value.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(value)):
        return 0
    return sum(int((~torch.isfinite(part)).sum()) for part in value.reshape(-1).split(_CHUNK))


class NumbersCheck:
    """Counts non-finite numbers in tensors, to report all of them in one error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bad: dict[str, int] = {}
        self._over: dict[str, int] = {}
        self._type = torch.float32

    def passed(self, names: Sequence[str], stored: Tensor, written: Tensor) -> Tensor:
        """Count the non-finite numbers of `written` and return it.

        names: the tensors of the checkpoint that it is made from.
        stored: the tensor before its dtype was changed.
        """
        if bad := non_finite(written):
            before = non_finite(stored) if stored.dtype != written.dtype else bad
            self._bad |= {", ".join(names): before} if before else {}
            self._over |= {", ".join(names): bad} if not before else {}
            self._type = written.dtype
        return written

    def check(self) -> None:
        """Raise UserError if numbers were NaN or infinite, or too large for the dtype that was written."""
        if self._bad:
            found = f"NaN or infinite ones: {_counted(self._bad)}"
            fix = "get the file again; if the published file has them, its training diverged"
            raise UserError(str(self._path), expected="finite numbers", found=found, fix=fix)
        if self._over:
            most = f"{torch.finfo(self._type).max:g}"
            name = str(self._type).removeprefix("torch.")
            found = f"numbers above {most}: {_counted(self._over)}"
            fix = "write --dtype bfloat16 or float32"
            raise UserError(str(self._path), expected=f"numbers that {name} can hold", found=found, fix=fix)


def _counted(found: Mapping[str, int]) -> str:
    """Return `3 in a.weight, 1 in b.weight and more in 4 other tensors`."""
    shown = ", ".join(f"{count} in {name}" for name, count in list(found.items())[:_NAMED])
    more = len(found) - _NAMED
    return f"{shown} and more in {more} other tensor{'s' if more > 1 else ''}" if more > 0 else shown

"""Images of the device's rounds beside those of the host's loop, on one engine.

Knows both loops. Does not know what makes a tie near (`coolsd_rt.workflows.ties`, which `parity` judges by as well),
nor backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coolsd_rt.arrays import Host
from coolsd_rt.law import Law
from coolsd_rt.runtime.drafters import DrafterName
from coolsd_rt.runtime.round import LoopHooks, decode
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.workflows.ties import NEAR, Margins, Parting

__all__ = ["NEAR", "HostLoop", "Parting"]


class HostLoop:
    """A batch drawn by the host's loop, with the margin of every decision."""

    def __init__(
        self,
        session: Any,
        law: Law,
        sampling: Sampling,
        uniforms: Host,
        forced: Sequence[int] | None = None,
        drafter: DrafterName = "eagle",
    ) -> None:
        self._margins = Margins(law, sampling, uniforms)
        done = decode(
            session,
            law,
            sampling,
            uniforms,
            forced,
            drafter=drafter,
            loop="host",
            hooks=LoopHooks(on_round=self._margins),
        )
        self.codes, self.statistics = done.codes, done.statistics

    def partings(self, codes: Host) -> list[Parting]:
        """Of the same batch drawn by somebody else, int64 [M, N]. One for each image that is not the same."""
        return self._margins.partings(self.codes, codes)

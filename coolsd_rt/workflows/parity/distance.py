"""Measures the deviation of a tested engine from a reference: errors of values, and distances between distributions.

Knows arrays. Does not know engines, images or thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coolsd_rt.arrays import Host


def host(array: Any) -> Host:
    """Copy an array of any namespace to the host; half precision becomes float32."""
    if not isinstance(array, np.ndarray) and hasattr(array, "cpu"):  # a torch tensor, on any device
        array = array.detach().cpu()
        array = array.float() if array.dtype.is_floating_point and array.dtype.itemsize < 4 else array
    values = np.asarray(array)
    return values.astype(np.float32) if values.dtype == np.float16 else values


@dataclass
class Deviation:
    """Errors of the tested values, accumulated over arrays."""

    values: int = 0
    largest: float = 0.0  # max |tested - reference|; infinite if either is not finite
    magnitude: float = 0.0  # max |reference|
    total: float = 0.0

    def add(self, tested: Host, reference: Host) -> None:
        """Add the errors of an array. Both arrays have the same shape."""
        error = np.abs(tested.astype(np.float64) - reference)
        worst = float(error.max(initial=0.0))
        self.largest = max(self.largest, worst if np.isfinite(worst) else np.inf)
        self.magnitude = max(self.magnitude, float(np.abs(reference).max(initial=0)))
        self.total += float(error.sum())
        self.values += error.size

    def as_dict(self) -> dict[str, float]:
        """Return JSON data. relative: the largest error divided by the largest reference value."""
        return {
            "max_error": self.largest,
            "relative_error": self.largest / self.magnitude if self.magnitude else self.largest,
            "mean_error": self.total / max(1, self.values),
        }


@dataclass
class Distances:
    """Total variation distances between both sides' distributions after the sampling filters, one per position."""

    seen: list[Host] = field(default_factory=list)

    def add(self, tested: Host, reference: Host) -> None:
        """Add the distances between two arrays of distributions [..., V]."""
        self.seen.append(0.5 * np.abs(tested.astype(np.float64) - reference).sum(-1).ravel())

    def as_dict(self) -> dict[str, float]:
        """Return JSON data: the mean and the largest distance, both in [0, 1]."""
        tv = np.concatenate([*self.seen, np.zeros(0)])
        tv = tv if tv.size else np.zeros(1)
        return {"mean_tv": float(tv.mean()), "max_tv": float(tv.max())}


@dataclass
class GraphParity:
    """Errors of every graph. `proposed_alike` counts the draft tokens, of `proposed`, that equal the reference's."""

    condition: Deviation = field(default_factory=Deviation)
    target: Deviation = field(default_factory=Deviation)
    target_features: Deviation = field(default_factory=Deviation)
    draft: Deviation = field(default_factory=Deviation)
    image: Deviation = field(default_factory=Deviation)
    propose: Deviation = field(default_factory=Deviation)  # errors of probabilities
    p: Distances = field(default_factory=Distances)
    q: Distances = field(default_factory=Distances)
    proposed: int = 0
    proposed_alike: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data by graph, without the graphs that the engine does not have."""
        graphs: dict[str, Any] = {
            "condition": self.condition.as_dict(),
            "target": self.target.as_dict() | self.p.as_dict(),
            "target_features": self.target_features.as_dict(),
        }
        if self.image.values:
            graphs["image"] = self.image.as_dict()
        if self.draft.values:
            graphs["draft"] = self.draft.as_dict() | self.q.as_dict()
        if self.proposed:
            alike = self.proposed_alike / self.proposed
            graphs["propose"] = self.propose.as_dict() | {"tokens": self.proposed, "alike": alike}
        return graphs

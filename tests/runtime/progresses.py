"""What every loop owes to whoever listens to its progress."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from coolsd_rt.arrays import Ints
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.statistics import Generation


@dataclass
class Heard:
    """An `on_progress` that keeps all of it, the codes of that moment too."""

    progress: list[Progress] = field(default_factory=list)
    codes: list[Ints] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.codes.append(progress.codes())

    def check(self, result: Generation) -> None:
        """What is said to be decided is final, grows in each image, and is all of it in the end."""
        assert (np.diff([progress.decided for progress in self.progress], axis=0) >= 0).all()
        for progress, codes in zip(self.progress, self.codes, strict=True):
            assert progress.total == progress.decided.sum() > 0
            assert progress.decided.dtype == codes.dtype == np.int64
            for count, shown, final in zip(progress.decided.tolist(), codes, result.codes, strict=True):
                np.testing.assert_array_equal(shown[:count], final[:count])
        last = self.progress[-1]
        assert (last.decided == result.codes.shape[1]).all()
        assert last.mean_acceptance_length == pytest.approx(result.statistics.mean_acceptance_length)

"""Records P and Q of real rounds, for the computations of `coolsd_rt.law.traces`.

    recording/recording.json      what was recorded: engine, settings, prompts, seed
    recording/00000.npz, ...      one file per batch of images, each written atomically

Knows engines, jobs and files. Does not know what is computed from a recording. An interrupted recording continues where
it stopped; a folder with another engine or other settings is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.errors import UserError
from coolsd_rt.law.traces import RecordedRounds
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import LoopTaken
from coolsd_rt.store.results import Arrays, Batches, claim
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings

HEAD = "recording.json"
FORMAT = 2  # version of the arrays; 2 added the image of each round
LOOP: LoopTaken = "host"  # only this loop exposes P and Q of a round
_FIELDS = ("target", "draft", "drafts", "num_drafts", "accepted", "position", "image")


@dataclass
class Recorder:
    """An `on_round` hook that stores every window of unfinished images. Legend: L draft length, V codes.

    images: the number of each image of the batch, in the order of its rows.
    """

    length: int
    images: Sequence[int]
    _kept: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {name: [] for name in _FIELDS})

    def __call__(self, state: State, record: RoundRecord) -> None:
        """Store a round after its commit.

        Windows cut short by the image's end are padded with drafts that are never used.
        """
        target, draft = np.asarray(record.target), np.asarray(record.draft)
        short = self.length - draft.shape[1]
        fill = np.full((short, target.shape[-1]), 1.0 / target.shape[-1], np.float32)
        for m in np.flatnonzero(record.active & (record.num_drafts > 0)):
            self._keep("target", np.concatenate([target[m, : draft.shape[1]], fill]))
            self._keep("draft", np.concatenate([draft[m], fill]))
            self._keep("drafts", np.concatenate([record.drafts[m], np.zeros(short, np.int64)]))
            self._keep("num_drafts", record.num_drafts[m])
            self._keep("accepted", record.accepted[m])
            # The commit advanced by the accepted drafts and the token after them.
            self._keep("position", state.committed[m] - record.accepted[m] - 1 - state.prefix)
            self._keep("image", np.int64(self.images[int(m)]))

    def _keep(self, name: str, value: Any) -> None:
        self._kept[name].append(np.array(value))

    def arrays(self) -> Arrays:
        """Return all windows so far.

        target, draft: float32 [n, L, V]. drafts: [n, L]. num_drafts, accepted, position, image: [n].
        """
        return {name: np.stack(values) if values else np.zeros(0) for name, values in self._kept.items()}


@dataclass(frozen=True)
class Recording:
    """Recorded windows, the number of accepted drafts of each, [n], and the image token at which each begins, [n]."""

    windows: RecordedRounds
    accepted: NDArray[np.int64]
    position: NDArray[np.int64]

    @staticmethod
    def of(parts: Sequence[Arrays]) -> Recording:
        """Join the arrays of several batches."""
        whole = {name: np.concatenate([part[name] for part in parts]) for name in _FIELDS}
        windows = RecordedRounds(
            whole["target"], whole["draft"], whole["drafts"], whole["num_drafts"], image=whole["image"]
        )
        return Recording(windows, whole["accepted"], whole["position"])


def record(
    engine: Engine,
    batches: Sequence[Sequence[Job]],
    conditioner: Conditioner,
    settings: Settings,
    folder: Path | None,
    head: dict[str, Any],
    on_batch: Callable[[int], None] = lambda done: None,
) -> Recording:
    """Draw all batches and record their rounds. With `folder`, each batch is written when it is finished.

    head: describes the recording, JSON data. Raises UserError if the folder holds another recording.
    """
    if settings.plain:
        raise UserError("a recording", expected="a draft", found="plain decoding")
    if folder is not None:
        claim(folder, HEAD, head, "a recording of this engine, settings and prompts")
    kept, parts = Batches(folder, _FIELDS, "a batch of a recording"), []
    for number, jobs in enumerate(batches):
        parts.append(kept.get(number, partial(_batch, engine, jobs, conditioner, settings)))
        on_batch(number + 1)
    return Recording.of(parts)


def _batch(engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings) -> Arrays:
    recorder = Recorder(settings.law.length, [job.index for job in jobs])
    drawing.draw(engine, jobs, conditioner, settings, loop=LOOP, on_round=recorder)
    return recorder.arrays()

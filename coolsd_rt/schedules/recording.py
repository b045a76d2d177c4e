"""Records P and Q of real rounds, for the computations of `coolsd_rt.law.traces`.

    recording/recording.json      what was recorded: engine, settings, prompts, seed
    recording/00000.npz, ...      one file per batch of images, each written atomically

Rounds of images are kept as they are. Those of texts are merged (`coolsd_rt.schedules.merging`): P and Q of a position
are 98,304 numbers there, and about 500 once merged. What merged windows cannot tell is recorded beside them.

Knows engines, jobs and files. Does not know what is computed from a recording. An interrupted recording continues where
it stopped; a folder with another engine or other settings is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law.traces import RecordedRounds
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import LoopTaken
from coolsd_rt.schedules.merging import merge_codes
from coolsd_rt.store.results import Arrays, Batches, claim
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings

HEAD = "recording.json"
FORMAT = 3  # version of the arrays; 2 added the image of each round, 3 entropy and top5
Noun = Literal["images", "texts"]
LOOP: LoopTaken = "host"  # only this loop exposes P and Q of a round
_FIELDS = ("target", "draft", "drafts", "num_drafts", "accepted", "position", "image", "entropy", "top5")


@dataclass
class Recorder:
    """An `on_round` hook that stores every window of unfinished images. Legend: L draft length, V codes.

    images: the number of each image of the batch, in the order of its rows.
    ends: end tokens of texts, whose windows are merged; None: images, which are not.
    """

    length: int
    images: Sequence[int]
    ends: Sequence[int] | None = None
    _kept: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {name: [] for name in _FIELDS})

    def __call__(self, state: State, record: RoundRecord) -> None:
        """Store a round after its commit.

        All verified drafts are stored, also those after an accepted end token, for laws that reject it: which of them
        count is a matter of the drafts (`RecordedRounds.counts`).
        """
        target, draft = np.asarray(record.target), np.asarray(record.draft)
        for m in np.flatnonzero(record.active & (record.offered > 0)):
            count = self._until_end(record.drafts[m, : record.offered[m]])
            p, q, drafts = target[m, :count], draft[m, :count], record.drafts[m, :count]
            self._keep("entropy", self._padded(entropies(p)))
            self._keep("top5", self._padded(top_masses(p)))
            if self.ends is not None:
                p, q, drafts = merge_codes(p, q, drafts, self.ends)
                p, q = p.astype(np.float32), q.astype(np.float32)
            self._keep("target", self._padded(p, 1.0 / p.shape[-1]))
            self._keep("draft", self._padded(q, 1.0 / p.shape[-1]))
            self._keep("drafts", self._padded(drafts))
            self._keep("num_drafts", record.offered[m])
            self._keep("accepted", record.kept[m])
            # The commit advanced by the accepted drafts and the token after them.
            self._keep("position", state.committed[m] - record.accepted[m] - 1 - state.prefix)
            self._keep("image", np.int64(self.images[int(m)]))

    def _until_end(self, drafts: NDArray[np.int64]) -> int:
        """Return the number of drafts up to the first end token, or of all."""
        is_end = np.isin(drafts, self.ends or ())
        return int(is_end.argmax()) + 1 if is_end.any() else len(drafts)

    def _padded(self, values: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Return values [count, ...] with rows that are never used, up to L."""
        rest = (self.length - len(values), *values.shape[1:])
        return np.concatenate([values, np.full(rest, fill, values.dtype)])

    def _keep(self, name: str, value: Any) -> None:
        self._kept[name].append(np.array(value))

    def arrays(self) -> Arrays:
        """Return all windows so far.

        target, draft: float32 [n, L, V], or [n, L, columns] of merged ones. drafts: [n, L]. entropy, top5: of P before
        merging, [n, L]. num_drafts, accepted, position, image: [n].
        """
        return {name: np.stack(values) if values else np.zeros(0) for name, values in self._kept.items()}


def entropies(p: NDArray[Any]) -> Floats64:
    """Return the entropy of distributions [..., V], in nats."""
    p = np.asarray(p, np.float64)
    return np.asarray(-(p * np.log(np.maximum(p, 1e-300))).sum(-1), np.float64)


def top_masses(p: NDArray[Any]) -> Floats64:
    """Return the probability of the five most probable codes of distributions [..., V]."""
    p = np.asarray(p, np.float64)
    top = np.partition(p, -5, axis=-1)[..., -5:] if p.shape[-1] > 5 else p
    return np.asarray(top.sum(-1), np.float64)


@dataclass(frozen=True)
class Recording:
    """Recorded windows and facts of each.

    Attributes:
        windows: the windows.
        accepted: number of accepted drafts, [n]; an accepted end token is one of them.
        position: the image token at which each window begins, [n].
        entropy: entropy of P, in nats, [n, L].
        top5: probability of P's five most probable codes, [n, L].
    """

    windows: RecordedRounds
    accepted: NDArray[np.int64]
    position: NDArray[np.int64]
    entropy: Floats64
    top5: Floats64

    @staticmethod
    def of(parts: Sequence[Arrays], ends: Sequence[int] | None = None) -> Recording:
        """Join the arrays of several batches. ends: as in `Recorder`.

        Raises UserError if there is no round: a drafter may have proposed nothing.
        """
        filled = [part for part in parts if len(part["drafts"])]
        if not filled:
            expected, found = "rounds with drafts", "none: the drafter proposed nothing"
            raise UserError("a recording", expected=expected, found=found, fix="record more, or other prompts")
        whole = {name: np.concatenate([part[name] for part in filled]) for name in _FIELDS}
        windows = RecordedRounds(
            whole["target"],
            whole["draft"],
            whole["drafts"],
            whole["num_drafts"],
            image=whole["image"],
            ends=tuple(range(len(ends or ()))),  # the first columns of merged windows
            merged=ends is not None,
        )
        return Recording(windows, whole["accepted"], whole["position"], whole["entropy"], whole["top5"])


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

    head: describes the recording, JSON data. Raises UserError if the folder holds another recording, or no round
    has a draft.
    """
    if settings.plain:
        raise UserError("a recording", expected="a draft", found="plain decoding")
    if folder is not None:
        claim(folder, HEAD, head, "a recording of this engine, settings and prompts")
    kept, parts = Batches(folder, _FIELDS, "a batch of a recording"), []
    for number, jobs in enumerate(batches):
        parts.append(kept.get(number, partial(_batch, engine, jobs, conditioner, settings)))
        on_batch(number + 1)
    return Recording.of(parts, ends_of(settings))


def ends_of(settings: Settings) -> tuple[int, ...] | None:
    """Return the end tokens of texts; None for images."""
    return None if settings.bounds is None else settings.bounds.ends


def _batch(engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings) -> Arrays:
    recorder = Recorder(settings.law.length, [job.index for job in jobs], ends_of(settings))
    drawing.draw(engine, jobs, conditioner, settings, loop=LOOP, on_round=recorder)
    return recorder.arrays()

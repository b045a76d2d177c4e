"""Images that step together in `slots`: their counts, their rows, and the order in which newcomers take them.

Knows one loop and the images of its rows. Does not know turns, waiting images, or who asked for one.

Legend: M images of a group, N image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from coolsd_rt.arrays import Ints
from coolsd_rt.law import Law
from coolsd_rt.runtime.decoding_loop import DecodingLoop
from coolsd_rt.runtime.drafter_names import DrafterName
from coolsd_rt.runtime.ngrams import NGRAMS, NgramSizes
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.statistics import LoopTaken, Statistics

if TYPE_CHECKING:
    from coolsd_rt.runtime.state import RoundRecord
    from coolsd_rt.runtime.trees import TreeShape


@dataclass(frozen=True)
class ImageRequest:
    """How one image is drawn. forced: int, the token that each position must have, or -1; None if all are free.

    item: what `OpenSession` makes the image's prefix from. may_drop_drafts: whether `Slots.drop_drafts` is for it too.
    ends, limit: tokens that complete a text, and the most tokens of it; none for images. first: the first position of
    its prefix that is no padding, of a text.
    ngrams, prompt: for the drafter `ngram`, as in `Lookup`. tree: the shape of a round's drafts; None: a chain.
    """

    item: Any
    law: Law
    sampling: Sampling
    seed: int
    drafter: DrafterName = "eagle"
    forced: tuple[int, ...] | None = None
    may_drop_drafts: bool = False
    ends: tuple[int, ...] = ()
    limit: int | None = None
    first: int = 0
    ngrams: NgramSizes = NGRAMS
    prompt: tuple[int, ...] = ()
    tree: TreeShape | None = None

    @property
    def alike(self) -> Hashable:
        """Equal for images whose prefixes can be run together: the same settings, seed and item excepted.

        Prompts of texts begin at different positions. Those of the same length are run together, so that no text
        depends on the prompt of another.
        """
        return self.group, self.law.omegas, self.sampling, self.may_drop_drafts, self.first, self.ngrams

    @property
    def group(self) -> Hashable:
        """Equal for images that can share a step: the same rule, resampler, drafter and tree, and as many rows each."""
        law, tolerance = self.law, self.law.tolerance
        lent = None if tolerance is None else (tolerance.bound, tolerance.lending, tolerance.near.shape)
        rule = (law.rule, law.resampler, lent, law.rates, law.refinements)
        return (
            (*self.plain_group, self.drafter, self.tree, rule, self.may_drop_drafts) if law.length else self.plain_group
        )

    @property
    def plain_group(self) -> tuple[bool, tuple[int, ...] | None, tuple[int, ...]]:
        """The group of images that are drawn without drafts and can share a step with this one then."""
        return self.sampling.guided, self.forced, self.ends


@dataclass(frozen=True)
class SlotProgress:
    """An image that is being drawn, after a round of it.

    Attributes:
        ticket: as it was given to `Slots.enter`.
        decided: number of decided tokens.
        accepted, num_drafts: of each of its rounds so far; empty on a device's loop.
        mean_acceptance_length: tokens per round so far; NaN before the first. On a device's loop of all images at once.
        get_codes: returns the codes int64 [N]; as `Progress.codes`.
    """

    ticket: int
    decided: int
    accepted: Sequence[int]
    num_drafts: Sequence[int]
    mean_acceptance_length: float
    get_codes: Callable[[], Ints]

    @property
    def codes(self) -> Ints:
        """Codes int64 [N], of which the first `decided` are final. For use during the callback alone."""
        return self.get_codes()


@dataclass(frozen=True, eq=False)
class DrawnImage:
    """The tokens of a finished image.

    Attributes:
        ticket: as it was given to `Slots.enter`.
        codes: int64 [N]; of a text, as many as it has, the end included.
        accepted, num_drafts: of each of its rounds; empty on a device's loop.
        seconds_waiting: wall time from `enter` until it had a slot.
        seconds: wall time from then to its last token, with the turns of others.
        loop: the loop that ran.
        plain_from: the token from which on it was drawn without drafts, by `Slots.drop_drafts`; None: as it was asked.
        distance: of the rule per_position, the bound of `coolsd_rt.runtime.position_round` over all its rounds.
    """

    ticket: int
    codes: Ints
    accepted: tuple[int, ...]
    num_drafts: tuple[int, ...]
    seconds_waiting: float
    seconds: float
    loop: LoopTaken = "host"
    plain_from: int | None = None
    distance: float | None = None


@dataclass(eq=False)
class Slot:
    """An image in a slot, or waiting for one. live: it has more rounds."""

    ticket: int
    request: ImageRequest
    entered: float
    began: float = 0.0
    live: bool = True
    accepted: list[int] = field(default_factory=list)
    num_drafts: list[int] = field(default_factory=list)
    degenerate: int = 0
    repeats: int = 0
    distance: float | None = None
    plain_from: int | None = None

    def count(self, record: RoundRecord, m: int) -> None:
        """Count a round, in which it was image m."""
        self.accepted.append(int(record.accepted[m]))
        self.num_drafts.append(int(record.num_drafts[m]))
        self.degenerate += bool(record.degenerate[m])
        self.repeats += record.steps - 1
        if record.distance is not None:
            self.distance = (self.distance or 0.0) + float(record.distance[m])

    @property
    def mean(self) -> float:
        """Tokens per round so far."""
        return 1.0 + sum(self.accepted) / len(self.accepted) if self.accepted else float("nan")

    def drawn(self, codes: Ints, now: float, loop: LoopTaken = "host") -> DrawnImage:
        """Return the finished image."""
        waited, took = self.began - self.entered, now - self.began
        rounds = tuple(self.accepted), tuple(self.num_drafts)
        return DrawnImage(self.ticket, codes.copy(), *rounds, waited, took, loop, self.plain_from, self.distance)


class SlotGroup:
    """Images that step together. The rows of one that has finished or left stay until a newcomer takes them or the
    next round begins."""

    def __init__(self, loop: DecodingLoop, images: Sequence[Slot]) -> None:
        self._loop, self._images = loop, list(images)

    @property
    def live(self) -> list[Slot]:
        """The images that have more rounds."""
        return [one for one in self._images if one.live]

    @property
    def may_drop_drafts(self) -> bool:
        """Whether the images have drafts that they can go on without."""
        request = self._images[0].request
        return request.may_drop_drafts and request.law.length > 0 and self._images[0].plain_from is None

    def drop_drafts(self) -> Hashable:
        """Draw the images without drafts from the next round on. Returns the group to which they belong then."""
        decided = self._loop.state.decided.tolist()
        for one, count in zip(self._images, decided, strict=True):
            one.plain_from = count
        self._loop.drop_drafts()
        return self._images[0].request.plain_group

    def merge(self, other: SlotGroup) -> None:
        """Take in all images of another group, which is not used any more."""
        other.trim()
        self.join(other._loop, other._images)

    def trim(self) -> None:
        """Drop the rows of images that are not there any more."""
        keep = [m for m, one in enumerate(self._images) if one.live]
        if len(keep) < len(self._images) and self._loop.changes:
            self._take(keep)

    def join(self, other: DecodingLoop, newcomers: Sequence[Slot]) -> None:
        """Take in images after their prefill. They get the rows of images that are not there any more first."""
        images = len(self._images)
        places = [m if one.live else -1 for m, one in enumerate(self._images)]
        new = list(range(images, images + len(newcomers)))
        keep = [place if place >= 0 else (new.pop(0) if new else -1) for place in places]
        self._take([place for place in keep if place >= 0] + new, other, newcomers)

    def _take(self, keep: list[int], other: DecodingLoop | None = None, newcomers: Sequence[Slot] = ()) -> None:
        self._loop.take(np.array(keep), other)
        every = [*self._images, *newcomers]
        self._images = [every[place] for place in keep]

    def round(self) -> list[Slot]:
        """Run a round; return the images that it finished."""
        self.trim()
        record = self._loop.round()
        for m in np.flatnonzero(record.active).tolist():
            self._images[m].count(record, m)
        return self.newly_finished()

    def newly_finished(self) -> list[Slot]:
        """Return the images that are finished and were not returned before."""
        left = self._loop.state.remaining
        finished = [one for m, one in enumerate(self._images) if one.live and not left[m]]
        for one in finished:
            one.live = False
        return finished

    def codes(self, image: Slot) -> Ints:
        """Return the codes int64 [N] of an image of the last round; of a text that is finished, those that it has."""
        state, m = self._loop.state, self._images.index(image)
        codes: Ints = state.codes[m, : state.limit[m]]
        return codes

    def progress(self, finished: Sequence[Slot]) -> list[SlotProgress]:
        """Return the progress of the images of the last round. finished: by that round."""
        state = self._loop.state
        decided = state.decided.tolist()
        return [
            SlotProgress(one.ticket, decided[m], one.accepted, one.num_drafts, one.mean, partial(self.codes, one))
            for m, one in enumerate(self._images)
            if one.live or one in finished
        ]


def progress_of(images: Sequence[Slot], progress: Progress) -> list[SlotProgress]:
    """Return the progress of a batch that a session draws by itself."""
    decided, mean = progress.decided.tolist(), progress.mean_acceptance_length

    def codes(m: int) -> Ints:
        row: Ints = progress.codes()[m]
        return row

    return [SlotProgress(one.ticket, decided[m], (), (), mean, partial(codes, m)) for m, one in enumerate(images)]


def statistics_of(images: Sequence[Slot]) -> Statistics:
    """Return the counts of finished images."""
    length = max(one.request.law.length for one in images)
    found = Statistics.empty(len(images), length)
    always = np.ones(1, bool)
    for m, one in enumerate(images):
        for accepted, drafts in zip(one.accepted, one.num_drafts, strict=True):
            found.record(np.array([accepted]), np.array([drafts]), ~always, always, np.array([m]))
        found.degenerate += one.degenerate
        found.repeats += one.repeats
        found.add_distance(one.distance)
    return found

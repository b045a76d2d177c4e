"""The loop over a batch of images of continuous tokens: the prefill, and the code of one round.

One round, as in `coolsd_rt.runtime.round`:
1. Window: the number of drafts that each image can still use, and its numbers.
2. Draft: the draft's decoder steps over the tokens that it has not seen, its head draws x_1; then over its own drafts.
3. Target: one step of the decoder over [pending, x_1..x_L]. Then its head, for all L positions and both rows of CFG in
   one batch, from the noise that the draft's head had of every step but the last (`VectorSampling.aligned`).
4. Verify: accept drafts up to the first rejection, whose replacement is drawn from G*; else draw the token behind them
   from the target's last Gaussian. The draft's own noise of the last step is all that a draft's token depends on given
   the states before that step, and the target's state does not depend on it: so this is the ordinary round between two
   Gaussians, and lossless (docs/theory.md).
5. Commit: decide the tokens, advance the counters.

Knows models behind a protocol, the law and numbers. Does not know networks, or who asked. Legend as in
`coolsd_rt.runtime.continuous.interface`; the rows of a finished image are stepped until the last image
is finished, and no head runs for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law.continuous import LastStep, verify_position
from coolsd_rt.runtime.continuous.interface import Floats32, Noise, VectorModel, VectorSession
from coolsd_rt.runtime.continuous.numbers import VectorNumbers
from coolsd_rt.runtime.continuous.settings import VectorLaw, VectorSampling
from coolsd_rt.runtime.state import State


@dataclass(frozen=True)
class VectorRecord:
    """What one round saw and decided. L' is the longest window of its images.

    Attributes:
        there: int64 [n], images that were not finished.
        num_drafts, accepted: int64 [M].
        tries: int64 [M], draws of P that replacements took. fallback: bool [M], where the bound was reached.
        target, draft: the Gaussians P and Q of the L' draft positions, one of n rows for each.
    """

    there: Ints
    num_drafts: Ints
    accepted: Ints
    tries: Ints
    fallback: Bools
    target: list[LastStep]
    draft: list[LastStep]


class VectorLoop:
    """The prefill, then one `round` at a time of all images, until `state.remaining` is 0 for each."""

    def __init__(self, session: VectorSession, law: VectorLaw, sampling: VectorSampling, seeds: Sequence[int]) -> None:
        """session: must be fresh. seeds: one of each image. Raises UserError for settings that do not fit it."""
        sizes, images = session.sizes, session.images
        if len(seeds) != images:
            raise ValueError(f"expected {images} seeds, found {len(seeds)}")
        if law.length > sizes.tokens:
            raise UserError("the draft length", expected=f"at most the image's {sizes.tokens}", found=str(law.length))
        if law.length and session.draft is None:
            raise UserError("drafts", expected="a session with a draft model", found="one without")
        self._session, self._law, self._sampling = session, law, sampling
        self._numbers = VectorNumbers(seeds, sizes, law.length, sampling.temperature)
        self._rows = np.arange(images)
        codes = np.zeros((images, sizes.tokens, sizes.channels), np.float32)
        committed, cached, drafted = (np.zeros(images, np.int64) for _ in range(3))
        limit = np.full(images, sizes.tokens, np.int64)
        self.state = State(sizes.prefix, sizes.tokens, codes, committed, cached, drafted, limit)

    def prefill(self) -> None:
        """Run the prefix through both models, and draw the first token with the target's head."""
        state, session, sizes = self.state, self._session, self._session.sizes
        blank = np.zeros((len(self._rows), sizes.prefix, sizes.channels), np.float32)
        features = self._advance(session.target, blank, state.cached)
        state.cached += sizes.prefix
        if self._law.length and session.draft is not None:
            self._advance(session.draft, blank, state.drafted)
            state.drafted += sizes.prefix
        first = np.zeros(len(self._rows), np.int64)
        state.codes[:, 0] = self._own(features[:, -1], self._rows, first, first)
        state.committed += sizes.prefix + 1

    def round(self) -> VectorRecord:
        """Run one round of every unfinished image. Returns a record of it."""
        state, law = self.state, self._law
        remaining = state.remaining
        active = remaining > 0
        there = np.flatnonzero(active)
        most = np.where(state.decided < self._sampling.alone, 0, law.length)
        num_drafts = np.minimum(np.maximum(remaining - 1, 0), most)
        count = int(num_drafts[there].max())
        at = state.image_index(state.committed, count + 1)
        drafts, q, shared = self._draft(there, count, at)

        pending = state.codes[self._rows, state.decided - 1][:, None]
        tokens = np.concatenate([pending, drafts.astype(np.float32)], axis=1)
        features = self._advance(self._session.target, tokens, state.cached)
        p = self._judged(features, there, at, shared)

        window = np.concatenate([drafts, np.zeros((len(drafts), 1, drafts.shape[2]))], axis=1)
        accepted, tries, fallback = self._verify(window, there, num_drafts, at, p, q)
        kept = there[accepted[there] == num_drafts[there]]
        if len(kept):
            ends = accepted[kept]
            last = features[self._sides_of(kept), np.tile(ends, self._sides)]
            window[kept, ends] = self._own(last, kept, at[kept, ends], ends)
        state.commit(window.astype(np.float32), accepted, active)
        return VectorRecord(there, num_drafts, accepted, tries, fallback, p, q)

    def _draft(self, there: Ints, count: int, at: Ints) -> tuple[Floats64, list[LastStep], list[Noise]]:
        """Draw `count` drafts of the images `there`: float64 [M, l, d], their Gaussians, and the noise before them."""
        state, model, channels = self.state, self._session.draft, self._session.sizes.channels
        drafts, laws, noises = np.zeros((len(self._rows), count, channels)), list[LastStep](), list[Noise]()
        if not count or model is None:
            return drafts, laws, noises
        pending = np.ones_like(self._rows)
        pending[there] = (state.committed - state.drafted)[there]
        width = int(pending.max())
        known = state.codes[self._rows[:, None], state.image_index(state.drafted, width)]
        sides = self._sides_of(there)
        features = self._advance(model, known, state.drafted)[sides, np.tile(pending[there] - 1, self._sides)]
        state.drafted[there] = state.committed[there]
        for i in range(count):
            noise, last = self._numbers.tokens(there, at[there, i], np.full_like(there, i))
            noises.append(noise)
            laws.append(model.last_step(features, self._scale(len(there)), noise))
            drafts[there, i] = laws[i].at(last)
            if i + 1 < count:
                features = self._advance(model, drafts[:, i : i + 1].astype(np.float32), state.committed + i)[sides, 0]
        return drafts, laws, noises

    def _verify(
        self, window: Floats64, there: Ints, num_drafts: Ints, at: Ints, p: list[LastStep], q: list[LastStep]
    ) -> tuple[Ints, Ints, Bools]:
        """Replace the first rejected draft of each image `there` in `window` [M, l + 1, d].

        Returns how many were accepted [M], the tries of replacements [M], and where they reached their bound [M].
        """
        accepted, tries = np.zeros_like(self._rows), np.zeros_like(self._rows)
        fallback = np.zeros(len(self._rows), np.bool_)
        open_ = np.arange(len(there))  # rows of the Gaussians
        for i, omega in enumerate(self._law.omegas[: len(p)]):
            open_ = open_[num_drafts[there[open_]] > i]
            if not len(open_):
                break
            images, tokens = there[open_], at[there[open_], i]
            found = verify_position(
                window[images, i], p[i].rows(open_), q[i].rows(open_), omega,
                self._numbers.uniforms(images, tokens, i), self._numbers.tries(images, tokens, i), self._law.bound,
            )  # fmt: skip
            window[images, i] = found.tokens
            tries[images] += found.tries
            fallback[images] |= found.fallback
            accepted[images] += found.accepted
            open_ = open_[found.accepted]
        return accepted, tries, fallback

    def _judged(self, features: Floats32, there: Ints, at: Ints, shared: list[Noise]) -> list[LastStep]:
        """Return the target's Gaussians at the draft positions of the images `there`, from one run of its head.

        features: [R, L' + 1, C]. shared: the draft's noise, which is the target's too if both are aligned.
        """
        count, many = len(shared), len(there)
        if not count:
            return []
        both = zip(*shared, strict=True)  # image by image, and in an image position by position
        noise = Noise(*(np.stack(parts, axis=1).reshape(many * count, *parts[0].shape[1:]) for parts in both))
        if not self._sampling.aligned:
            offsets = np.tile(np.arange(count), many)
            noise, _ = self._numbers.tokens(
                np.repeat(there, count), at[there, :count].ravel(), offsets, aligned=False
            )  # fmt: skip
        rows = features[self._sides_of(there), :count].reshape(-1, features.shape[-1])
        whole = self._session.target.last_step(rows, self._scale(many * count), noise)
        return [whole.rows(np.arange(many) * count + i) for i in range(count)]

    def _own(self, features: Floats32, images: Ints, tokens: Ints, offset: Ints) -> Floats64:
        """Draw tokens [n, d] with the target's head. features: as in `_judged`."""
        noise, last = self._numbers.tokens(images, tokens, offset, self._sampling.aligned)
        return self._session.target.last_step(features, self._scale(len(images)), noise).at(last)

    @property
    def _sides(self) -> int:
        return 2 if self._sampling.guided else 1

    def _sides_of(self, images: Ints) -> Ints:
        """The rows of the decoder of images [n]: int64 [n], under CFG [2n]."""
        return np.concatenate([images + side * len(self._rows) for side in range(self._sides)])

    def _scale(self, count: int) -> Floats32 | None:
        return np.full(count, self._sampling.scale, np.float32) if self._sampling.guided else None

    def _advance(self, model: VectorModel, tokens: Floats32, pos: Ints) -> Floats32:
        """Step a decoder over tokens [M, S, d] in both rows of each image: features [R, S, C]."""
        return model.advance(np.concatenate([tokens] * self._sides), np.tile(pos, self._sides))

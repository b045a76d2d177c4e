"""Looks up n-grams of one sequence: what followed the last tokens the time before.

Knows token ids as host integers. Does not know probabilities, arrays, or who decides a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coolsd_rt.errors import UserError
from coolsd_rt.limits import NGRAM

FREE = -1  # no token is forced there


@dataclass(frozen=True)
class NgramSizes:
    """How many of the last tokens are looked up: `longest` first, then fewer, down to `shortest`.

    Raises UserError if a number is out of range.
    """

    longest: int = 3
    shortest: int = 1

    def __post_init__(self) -> None:
        longest, shortest = NGRAM.check("longest", self.longest), NGRAM.check("shortest", self.shortest)
        if shortest > longest:
            raise UserError("shortest", expected=f"at most longest, {longest}", found=str(shortest))


NGRAMS = NgramSizes()


@dataclass(frozen=True)
class Lookup:
    """What n-grams are looked up in beside the decided tokens of a batch, and their sizes.

    prompts: the ids before each image's first token, in the vocabulary of its tokens; empty: none of any image.
    """

    sizes: NgramSizes = NGRAMS
    prompts: tuple[tuple[int, ...], ...] = ()


LOOKUP = Lookup()


class NgramIndex:
    """The tokens of one sequence, and for each n-gram in it the place after its most recent occurrence.

    An n-gram enters with the token after it. So the last tokens never find themselves, only what was earlier.
    """

    def __init__(self, sizes: NgramSizes, prompt: Sequence[int] = ()) -> None:
        """prompt: ids before the first token, of the same vocabulary."""
        self._sizes = range(sizes.shortest, sizes.longest + 1)
        self._history: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after it
        self.extend(prompt)
        self._prompt = len(self._history)

    @property
    def decided(self) -> int:
        """Number of tokens, the prompt excepted."""
        return len(self._history) - self._prompt

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens."""
        history = self._history
        for token in tokens:
            end = len(history)
            for n in self._sizes:
                if n > end:
                    break
                self._after[tuple(history[end - n : end])] = end
            history.append(token)

    def find(self) -> int | None:
        """Return the index of the token that followed the longest known suffix; None if no suffix was there before."""
        history = self._history
        for n in reversed(self._sizes):
            if n <= len(history) and (after := self._after.get(tuple(history[-n:]))) is not None:
                return after
        return None

    def propose(self, count: int, forced: Sequence[int] = ()) -> list[int]:
        """Return up to `count` tokens: a copy of what followed, which goes on in the copy where the sequence ends.

        Without a match it ends at the first token that is not forced. forced: the id that each token must have, or
        `FREE`; it takes the place of the copied one.
        """
        after, end, known = self.find(), len(self._history), self._history
        for i in range(count):
            if i < len(forced) and forced[i] != FREE:
                known.append(forced[i])
            elif after is not None:
                known.append(known[after + i])
            else:
                break
        proposed = known[end:]
        del known[end:]
        return proposed

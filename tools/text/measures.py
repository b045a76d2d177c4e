"""Figures of a text's tokens: how much it repeats itself. Knows token ids. Does not know laws or files."""

from __future__ import annotations

from collections.abc import Sequence

RUN = 4  # tokens of a run that counts as a repetition


def repeated(ids: Sequence[int], run: int = RUN) -> tuple[int, int]:
    """Return how many runs of tokens occurred before in the same text, and how many runs there are."""
    runs = [tuple(ids[i : i + run]) for i in range(len(ids) - run + 1)]
    return len(runs) - len(set(runs)), len(runs)


def distinct(ids: Sequence[int], run: int) -> float:
    """Return the share of different runs among all; 1 for a text without a run."""
    again, total = repeated(ids, run)
    return 1 - again / total if total else 1.0

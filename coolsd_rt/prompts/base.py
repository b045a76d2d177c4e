"""The protocol of all conditions: a prompt's prefix, its unconditional counterpart, and both as rows of a batch.

Knows shapes and their order. Does not know text, files or networks.

Legend: M images, R rows (2M under CFG: all conditional rows first, then all unconditional), W prefix length, E width of
a text encoder's features. A row's prefix has n <= W positions and ends at position W - 1; its first position is
`start`.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from coolsd_rt.arrays import Floats32, Ints
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.limits import PROMPT_CHARACTERS
from coolsd_rt.shown import shorten

SAMPLES = ("a red apple on a wooden table", "a cat in a field of flowers", "a sailing boat at sunset", "a snowy street")
"""Prompts to try an engine with, if its files contain none."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The prefix of one row: n `ids`, or `features` float32 [n, E] instead, or [W, E] where padding has features too.

    start: the first position, W - n. unknown: words of the prompt that could not be read.
    """

    ids: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()
    start: int = 0
    features: Floats32 | None = None


class Conditioner(Protocol):
    """Converts prompts to prefixes. The result depends only on the prompt, on any machine and in any order."""

    @property
    def prefix(self) -> int:
        """The prefix length W."""
        ...

    @property
    def features_dim(self) -> int:
        """The feature width E, or 0 if rows are ids."""
        ...

    @property
    def padded(self) -> bool:
        """Whether rows may start after position 0, in which case the target needs their start."""
        ...

    def encode(self, prompt: str) -> Encoded:
        """Return a prompt's row. Raises UserError if the prompt is empty, too long, or cannot be read."""
        ...

    def unconditional(self, encoded: Encoded) -> Encoded:
        """Return the row that CFG subtracts from the row `encoded`."""
        ...

    def samples(self) -> list[str]:
        """Return at least one prompt to try an engine with."""
        ...

    def release(self) -> None:
        """Free what only encoding needs, such as a text encoder's weights. It is loaded again when needed."""
        ...


class Rows(NamedTuple):
    """The prefixes of a batch, with which a session begins.

    text: ids int64 [R, W] or features float32 [R, W, E]. Positions before `start` are zeros or are invisible to the
    target. start: int64 [R], the first position of each row's prefix.
    """

    text: Ints | Floats32
    start: Ints


def stack(conditioner: Conditioner, encoded: Sequence[Encoded], guided: bool) -> Rows:
    """Return the rows of M prompts, followed under CFG by the M unconditional ones."""
    every = [*encoded, *(conditioner.unconditional(e) for e in encoded)] if guided else list(encoded)
    start = np.asarray([e.start for e in every], np.int64)
    shape = (len(every), conditioner.prefix)
    if not conditioner.features_dim:
        ids = np.zeros(shape, np.int64)
        for row, e in zip(ids, every, strict=True):
            row[e.start :] = e.ids
        return Rows(ids, start)
    text = np.zeros((*shape, conditioner.features_dim), np.float32)
    for values, e in zip(text, every, strict=True):
        own = len(e.features) if e.features is not None else 0
        values[conditioner.prefix - own :] = e.features
    return Rows(text, start)


def check_fit(conditioner: Conditioner, dims: ModelDims) -> None:
    """Raise CoolsdError unless the conditioner's prefixes have the sizes that the target reads."""
    pairs = [
        ("prefix positions", dims.prefix, conditioner.prefix),
        ("width of the features (0: it reads ids)", dims.condition_dim, conditioner.features_dim),
        ("prefixes of different lengths (1) or not (0)", max(dims.padded, int(conditioner.padded)), dims.padded),
    ]
    for what, wanted, found in pairs:
        if wanted != found:
            fix = "name the condition the target was trained with, and build again"
            raise CoolsdError(f"the condition: {what}", expected=str(wanted), found=str(found), fix=fix)


def some_text(prompt: str) -> str:
    """Return the prompt without surrounding white space.

    Raises UserError if nothing is left, the prompt is too long, or it contains invalid characters.
    """
    text = prompt.strip()
    if not text:
        fix = 'give one, for example "red apple"'
        raise UserError("empty prompt", expected="at least one word", found=quoted(prompt), fix=fix)
    if len(text) not in PROMPT_CHARACTERS:
        found = f"{len(text)} in {quoted(text)}"
        most = f"at most {PROMPT_CHARACTERS.high} characters"
        raise UserError("prompt too long", expected=most, found=found, fix="shorten it")
    for place, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind == "Cs" or (kind == "Cc" and character not in "\t\n\r"):
            what = "half of a surrogate pair" if kind == "Cs" else "the control character"
            found = f"{what} {shorten(character)} at character {place + 1} of {quoted(text)}"
            fix = "save the text as UTF-8" if kind == "Cs" else "delete it"
            raise UserError("prompt", expected="text", found=found, fix=fix)
    return text


def quoted(prompt: str) -> str:
    """Format a prompt for an error message: short, on one line, in quotes."""
    return f"'{shorten(prompt)}'"


def too_long(prompt: str, count: int, most: int, unit: str = "tokens") -> UserError:
    """Return the error for a prompt that does not fit."""
    found = f"{count} in {quoted(prompt)}"
    return UserError("prompt too long", expected=f"at most {most} {unit}", found=found, fix="shorten it")


def need(extra: str, *packages: str) -> None:
    """Raise MissingExtra for the first package that is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, "reading prompts for this target")

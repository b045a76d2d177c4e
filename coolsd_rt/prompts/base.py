"""What every kind of condition gives: a prompt's own prefix, the unconditional one beside it, and both as rows.

Knows shapes and their order. Does not know text, files or networks.

Legend: M images, R rows (2M under CFG: all conditional rows first, then all unconditional), W prefix length, E width
of a text encoder's features. A row's own prefix has n <= W positions and ends at position W - 1; its first is `start`.
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
"""Prompts to try an engine on where its files name none."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One row's own prefix: `ids` (n of them), or `features` float32 [n, E] in their place, or [W, E] where padding has
    some too.

    start: the first position, W - n. unknown: what of the prompt could not be read.
    """

    ids: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()
    start: int = 0
    features: Floats32 | None = None


class Conditioner(Protocol):
    """Prompts to prefixes. Encodes alike on every machine and in any order."""

    @property
    def prefix(self) -> int:
        """W."""
        ...

    @property
    def features_dim(self) -> int:
        """E, or 0 where rows are ids."""
        ...

    @property
    def padded(self) -> bool:
        """Whether rows may start later than at position 0, so that the target has to know where."""
        ...

    def encode(self, prompt: str) -> Encoded:
        """A prompt's row. Raises UserError: empty, too long, or nothing that this kind can read."""
        ...

    def unconditional(self, encoded: Encoded) -> Encoded:
        """The row that CFG subtracts from `encoded`'s."""
        ...

    def samples(self) -> list[str]:
        """Prompts to try an engine on, at least one."""
        ...

    def release(self) -> None:
        """Let go of what only encoding needs (a text encoder's weights). It comes back when it is needed."""
        ...


class Rows(NamedTuple):
    """What a session begins with. text: ids int64 [R, W], or features float32 [R, W, E]; what stands before `start` is
    zeros, or nothing that a target sees.

    start: int64 [R], the first position of each row's own prefix.
    """

    text: Ints | Floats32
    start: Ints


def stack(conditioner: Conditioner, encoded: Sequence[Encoded], guided: bool) -> Rows:
    """Rows of M prompts, and under CFG the M unconditional ones after them."""
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
    """Raise CoolsdError unless prefixes of this kind are what a target of these sizes reads."""
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
    """The prompt without the white space around it.

    Raises UserError: nothing is left, it is longer than any prompt, or it holds what is no text.
    """
    text = prompt.strip()
    if not text:
        fix = 'give one, for example -p "red apple"'
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
    """A prompt as error messages show it: short, on one line, in quotes."""
    return f"'{shorten(prompt)}'"


def too_long(prompt: str, count: int, most: int, unit: str = "tokens") -> UserError:
    """The one error of a prompt that does not fit."""
    found = f"{count} in {quoted(prompt)}"
    return UserError("prompt too long", expected=f"at most {most} {unit}", found=found, fix="shorten it")


def need(extra: str, *packages: str) -> None:
    """Raise MissingExtra for the first package that is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, "reading prompts for this target")

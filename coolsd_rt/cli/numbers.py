"""Numbers on the command line, checked against the ranges of `coolsd_rt.limits`. Knows click.

Does not know what the numbers are for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from coolsd_rt import cores, limits
from coolsd_rt.cli.terminal import note
from coolsd_rt.errors import UserError
from coolsd_rt.ranges import Range
from coolsd_rt.shown import shorten, shown

F = TypeVar("F", bound=Callable[..., Any])


def _name(param: click.Parameter | None) -> str:
    """The longer of an option's names."""
    return max(param.opts, key=len) if param is not None else "a number"


def _read(ends: Range, name: str, value: Any, fix: str) -> Any:
    try:
        number = int(value) if ends.whole else float(value)
        return ends.check(name, number)
    except (ValueError, OverflowError, UserError):
        # As it was typed: Python's own account of 1e400 is inf.
        plain = isinstance(value, str) and re.fullmatch(r"[-+.\w]+", value, re.ASCII)
        raise UserError(name, expected=ends.said, found=shorten(value) if plain else shown(value), fix=fix) from None


class Whole(click.IntRange):
    """A whole number in a range; an error names both ends."""

    name = "integer"

    def __init__(self, ends: Range, fix: str = "") -> None:
        super().__init__(int(ends.low), int(ends.high))
        self.ends, self.fix = ends, fix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises UserError, which names the option and both ends of the range."""
        return _read(self.ends, _name(param), value, self.fix)


class Real(click.FloatRange):
    """A finite number in a range; an error names both ends."""

    name = "number"

    def __init__(self, ends: Range, fix: str = "") -> None:
        super().__init__(ends.low, ends.high)
        self.ends, self.fix = ends, fix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises UserError, which names the option and both ends of the range."""
        return _read(self.ends, _name(param), value, self.fix)


class Numbers(click.ParamType[Any]):
    """Comma-separated finite numbers in a range (1.5,1.2,1), at most the maximum draft length."""

    name = "numbers"

    def __init__(self, ends: Range) -> None:
        self.ends = ends

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the numbers as a tuple. Raises UserError, which names the option."""
        if not isinstance(value, str):
            return value
        words, most = value.split(","), int(limits.DRAFT_LENGTH.high)
        if len(words) > most:
            raise UserError(_name(param), expected=f"at most {most} numbers", found=str(len(words)))
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            raise UserError(_name(param), expected="numbers, as in 1.2,1.1,1", found=shown(value)) from None
        return [self.ends.check(_name(param), number) for number in numbers]


class ShardNumber(click.ParamType[Any]):
    """`i/n` with i from 1 to n, and n in a range: a pair of whole numbers."""

    name = "i/n"

    def __init__(self, ends: Range) -> None:
        self.ends = ends

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return (i, n). Raises UserError, which names the option."""
        first, slash, last = str(value).partition("/")
        if slash and first.isdecimal() and last.isdecimal() and len(str(value)) < 20:
            index, count = int(first), int(self.ends.check(_name(param), int(last)))
            if 1 <= index <= count:
                return index, count
        raise UserError(_name(param), expected="i/n with i from 1 to n, as in 2/8", found=shown(value))


def number(ends: Range, fix: str = "") -> Whole | Real:
    """The type of an option whose value is one number of `ends`. fix: what to do about another."""
    return Whole(ends, fix) if ends.whole else Real(ends, fix)


def _usable(context: click.Context, option: click.Parameter, asked: int | None) -> int | None:
    """What is asked for, or the usable cores if these are fewer; that is said on stderr."""
    if asked is None or not (line := cores.too_many(asked)):
        return asked
    note(f"warning: --threads: {line}")
    return cores.here().usable


def threads_option(of: str = "the engine") -> Callable[[F], F]:
    """`--threads`; arrives as `threads`, None where it is not given."""
    text = f"CPU threads of {of}; default: the number of usable cores."
    return click.option("--threads", type=number(limits.THREADS), callback=_usable, help=text)

"""Code shared by the verbs and the commands that run as modules: the entry point, which turns a failure into one line
and an exit code, and the option `--overwrite`, and the options of a command as one value. Knows click."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coolsd_rt.captured import kept_words
from coolsd_rt.cli.interrupts import INTERRUPTED, leave
from coolsd_rt.cli.terminal import complain, note
from coolsd_rt.errors import CoolsdError, UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
F = TypeVar("F", bound=Callable[..., Any])


def overwrite_option(function: F) -> F:
    """The option of every command that writes to files a user names; arrives as `overwrite`."""
    return click.option("--overwrite", is_flag=True, help="Replace existing files.")(function)


def gathered(kind: type[T]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass a command its options as one value of the dataclass `kind`; options without a field stay keywords."""

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            own = {f.name: values.pop(f.name) for f in fields(kind)}
            function(kind(**own), **values)

        return command

    return wrap


def enter(command: click.Command, arguments: Sequence[str] | None = None) -> Any:
    """Run `command` on `arguments`, or on what was typed. Exit codes: 1 our failure, 2 the user's mistake, 130
    interrupted."""
    try:
        with kept_words() as kept:
            result = command.main(args=arguments, standalone_mode=False)
        kept.tell(note)
        return result
    except click.ClickException as e:
        complain(UserError(" ".join(e.format_message().split())))
        sys.exit(2)
    except CoolsdError as e:
        complain(e)
        sys.exit(e.exit_code)
    except (KeyboardInterrupt, click.Abort):
        note("interrupted")
        leave(INTERRUPTED)

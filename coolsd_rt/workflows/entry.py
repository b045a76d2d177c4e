"""What the verbs and the commands that are run as modules share: the entry point, where a failure is one line and an
exit code, and the option `--overwrite`. Knows click."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from coolsd_rt.errors import CoolsdError

F = TypeVar("F", bound=Callable[..., Any])


def overwrite_option(function: F) -> F:
    """The option of every command that writes to files a user names; arrives as `overwrite`."""
    return click.option("--overwrite", is_flag=True, help="Replace files that have the names of new ones.")(function)


def enter(command: click.Command, arguments: Sequence[str] | None = None) -> Any:
    """Run `command` on `arguments`, or on what was typed. Exit codes: 1 our failure, 2 the user's mistake, 130
    interrupted."""
    try:
        return command.main(args=arguments, standalone_mode=False)
    except click.ClickException as e:
        click.echo(f"error: {e.format_message()}", err=True)
        sys.exit(2)
    except CoolsdError as e:
        click.echo(f"error: {e}", err=True)
        sys.exit(e.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)

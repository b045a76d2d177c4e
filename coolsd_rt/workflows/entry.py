"""The entry point of a command that is run as a module: a failure is one line and an exit code, as on the main command
line. Knows click."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from coolsd_rt.errors import CoolsdError


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

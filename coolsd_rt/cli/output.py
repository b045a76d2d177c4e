"""Output functions of every verb, from the room `terminal`, and the option --json.

Rule: with --json, stdout holds one JSON document and nothing else. Progress and notes go to stderr always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from coolsd_rt.cli.terminal import note, print_json, say, show_fields, show_table

__all__ = ["json_option", "note", "print_json", "say", "show_fields", "show_table"]

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """The option every verb has; arrives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout, and nothing else.")(
        function
    )

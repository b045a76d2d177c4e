"""The option `--ray` of verbs that can run on a Ray cluster. Knows click. Does not know Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
LOCAL = "local"
"""The value of `--ray` without an address: a Ray on this machine, which ends with the command."""


def ray_option(function: F) -> F:
    """The option `--ray [ADDRESS]`; arrives as `ray`: None where it is not given."""
    text = (
        "Run on a Ray cluster: HOST:PORT, ray://HOST:PORT, or auto for the one on this machine; without a value a Ray "
        "of its own is started here, for loopback."
    )
    return click.option("--ray", metavar="[ADDRESS]", is_flag=False, flag_value=LOCAL, default=None, help=text)(
        function
    )

"""What several verbs read from the command line in the same way. Knows click; does not know what the values are for."""

from __future__ import annotations

import click

from coolsd_rt.errors import UserError


def numbers(context: click.Context, option: click.Parameter, text: str | None) -> list[float] | None:
    """1.5,1.2,1 as numbers; None where nothing was typed. Raises UserError on anything else."""
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as e:
        raise UserError(option.opts[0], expected="numbers, as in 1.2,1.1,1", found=repr(text)) from e

"""What several verbs read from the command line in the same way. Knows click; does not know what the values are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from coolsd_rt.errors import UserError
from coolsd_rt.workflows.paths import FOLDER, READS

F = TypeVar("F", bound=Callable[..., Any])


def numbers(context: click.Context, option: click.Parameter, text: str | None) -> list[float] | None:
    """1.5,1.2,1 as numbers; None where nothing was typed. Raises UserError on anything else."""
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as e:
        raise UserError(option.opts[0], expected="numbers, as in 1.2,1.1,1", found=repr(text)) from e


def is_spec(path: Path) -> bool:
    """Whether a path that may be several things is a spec's: by its name, there or not."""
    return path.suffix in (".yaml", ".yml")


def reading_options(function: F) -> F:
    """What prompts are read with in the place of the spec's; arrives as `features` and `text_encoder`."""
    for option in (
        click.option("--text-encoder", type=FOLDER, help="Folder of the text encoder (condition t5)."),
        click.option("--features", type=READS, help="Captions' features, computed before (condition t5)."),
    ):
        function = option(function)
    return function

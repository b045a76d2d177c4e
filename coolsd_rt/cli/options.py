"""Options that several verbs share. Knows click; does not know what the values are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from coolsd_rt.cli.paths import FOLDER, READS

F = TypeVar("F", bound=Callable[..., Any])


def reading_options(function: F) -> F:
    """Options that replace the spec's features file and text encoder; passed as `features` and `text_encoder`."""
    for option in (
        click.option(
            "--text-encoder",
            type=FOLDER,
            help="Folder of the text encoder; replaces the spec's (condition t5).",
        ),
        click.option("--features", type=READS, help="Safetensors file of precomputed caption features (condition t5)."),
    ):
        function = option(function)
    return function

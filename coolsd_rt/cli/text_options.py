"""Options of verbs for engines that write text. Knows click. Does not know engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from coolsd_rt import limits
from coolsd_rt.cli.numbers import number
from coolsd_rt.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])

max_tokens_option = click.option(
    "--max-tokens", type=number(limits.TEXT_TOKENS), help="Texts: most tokens; default: the engine's."
)
"""Passed as `max_tokens`; also of verbs that record texts."""

_OPTIONS = (
    max_tokens_option,
    click.option("--system", metavar="TEXT", help="Texts: message of the system before each prompt."),
    click.option("--raw", is_flag=True, help="Texts: continue the prompt as it is, without the chat template."),
)


def text_options(function: F) -> F:
    """Add the options of texts to a verb."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True)
class TextOptions:
    """The values of `text_options`."""

    max_tokens: int | None
    system: str | None
    raw: bool

    def refuse(self, engine: Path) -> None:
        """Raise UserError if an option of texts was given for an engine that draws images."""
        given = {"--max-tokens": self.max_tokens, "--system": self.system, "--raw": self.raw or None}
        for name, value in given.items():
            if value is not None:
                expected, found = "an engine that writes text", f"{engine}, which draws images"
                raise UserError(name, expected=expected, found=found, fix="leave it out")

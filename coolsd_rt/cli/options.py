"""Options that several verbs share. Knows click; does not know what the values are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from coolsd_rt import limits
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.paths import FOLDER, READS, SPEC

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


sample_prompts_option = click.option(
    "-p",
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="Prompt. Repeatable; default: sample prompts of the condition.",
)
"""Passed as `prompts`; of verbs that need some prompts, whichever they are."""

image_seed_option = click.option(
    "--seed",
    type=number(limits.SEED),
    default=0,
    show_default=True,
    help="Random seed. Image i uses seed + i (modulo 2^64).",
)
"""Passed as `seed`."""

moved_spec_option = click.option("--spec", "spec_file", type=SPEC, help="Spec file, if it was moved after the build.")
"""Passed as `spec_file`."""

"""Every option of before is still taken, with every choice it had. `options_before.json` was made of the verbs of then.

An option that is renamed on purpose stays as a hidden one that names the new one, or this fails.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from coolsd_rt.cli.main import group

BEFORE = json.loads((Path(__file__).parent / "options_before.json").read_text(encoding="utf-8"))


def missing(before: dict[str, list[str] | None], command: click.Command) -> list[str]:
    """Options and choices of before that a verb does not take."""
    params = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    found = []
    for name, choices in before.items():
        if name not in params:
            found.append(name)
        elif isinstance(kind := params[name].type, click.Choice):
            found += [f"{name} {choice}" for choice in choices or () if choice not in kind.choices]
    return found


@pytest.mark.parametrize("verb", sorted(BEFORE))
def test_a_verb_takes_what_it_took(verb: str) -> None:
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    assert not missing(BEFORE[verb], command)


def test_a_renamed_option_or_choice_is_seen() -> None:
    option = click.Option(["--images"], type=click.Choice(["one", "two"]))
    command = click.Command("draw", params=[option])
    assert not missing({"--images": ["one"]}, command)
    assert missing({"--images": ["one", "three"], "--pictures": None}, command) == ["--images three", "--pictures"]

"""`coolsd-rt schema`."""

from __future__ import annotations

from pathlib import Path

import click

from coolsd_rt.cli.output import json_option, print_json, say
from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import read_bytes, why_unusable
from coolsd_rt.limits import SPEC_BYTES
from coolsd_rt.spec.schema import schema_text
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.workflows.paths import WRITES


@click.command()
@click.option(
    "--out",
    type=WRITES,
    default=Path("pipelines/spec.schema.json"),
    show_default=True,
    help="File to write or to check.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if the file is not what would be written.")
@json_option
def command(out: Path, check: bool, as_json: bool) -> None:
    """Write the spec's JSON Schema, which editors use to complete and check a spec while it is typed.

    \b
    Example:
      coolsd-rt schema --check
    """
    text = schema_text()
    there = why_unusable(out) != "nothing"
    current = there and read_bytes(out, "a JSON Schema", SPEC_BYTES) == text.encode()
    if check and not current:
        found = "another version" if there else "nothing"
        raise CoolsdError(str(out), expected="today's schema", found=found, fix="run: coolsd-rt schema")
    if not current:
        with disk_errors(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out, text.encode())
    if as_json:
        print_json({"file": out, "current": current, "written": not current})
    else:
        say(f"{out}: {'current' if current else 'written'}")

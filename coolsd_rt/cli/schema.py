"""`coolsd-rt schema`."""

from __future__ import annotations

from pathlib import Path

import click

from coolsd_rt.cli.entry import overwrite_option
from coolsd_rt.cli.output import json_option, print_json, say
from coolsd_rt.cli.paths import WRITES
from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import MIB, read_bytes, read_json, why_unusable
from coolsd_rt.limits import SPEC_BYTES
from coolsd_rt.spec.schema import TITLE, schema_text
from coolsd_rt.store.outputs import check_output, write_output


def _is_ours(path: Path) -> bool:
    """Whether a file is a schema of a spec, of any version: the one kind of file that is replaced unasked."""
    try:
        document = read_json(path, "a schema", 16 * MIB)
    except CoolsdError:
        return False
    return isinstance(document, dict) and document.get("title") == TITLE


@click.command()
@click.option(
    "--out",
    type=WRITES,
    default=Path("pipelines/spec.schema.json"),
    show_default=True,
    help="File to write or to check.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if the file differs from the schema.")
@overwrite_option
@json_option
def command(out: Path, check: bool, overwrite: bool, as_json: bool) -> None:
    """Write the spec's JSON Schema, which editors use to complete and check a spec during editing.

    An earlier version of the schema is replaced; any other file is replaced only with --overwrite.

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
        replace = overwrite or _is_ours(out)
        check_output(out, "--out", overwrite=replace)
        write_output(out, text.encode(), overwrite=replace)
    if as_json:
        print_json({"file": out, "current": current, "written": not current})
    else:
        say(f"{out}: {'current' if current else 'written'}")

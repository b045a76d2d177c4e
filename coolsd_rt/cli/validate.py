"""`coolsd-rt validate FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from coolsd_rt.cli.output import json_option, print_json, say
from coolsd_rt.cli.paths import SPEC
from coolsd_rt.files import blob_digest
from coolsd_rt.spec import LoadedSpec, load_spec
from coolsd_rt.store import check_safetensors, sha256_file
from coolsd_rt.workflows.build.run import describe


def _check_contents(loaded: LoadedSpec) -> None:
    """Each file is what its key says, and they belong together: what a build would refuse before it runs."""
    for key, path in loaded.files.items():
        if blob_digest(path):
            sha256_file(path)  # in the hub's cache, where files are links: what its name says
        if key.endswith(".weights"):
            check_safetensors(path)
    describe(loaded)


@click.command()
@click.argument("file", type=SPEC)
@json_option
def command(file: Path, as_json: bool) -> None:
    """Check a spec: its keys, its values, and the files that it names. Each problem is printed on a separate line; the
    exit code is 2 if there is a problem.

    \b
    Example:
      coolsd-rt validate pipelines/emoji.yaml
    """
    loaded = load_spec(file)
    _check_contents(loaded)
    if as_json:
        print_json({"valid": True, "spec": loaded.spec.resolved(), "files": loaded.files})
    else:
        say(f"{file}: valid")

"""The command of the comparison: `python -m tools.performance`.

    python -m tools.performance                       # everything, on an otherwise idle machine
    python -m tools.performance --only demo --turns 1
    python -m tools.performance --publish             # and write the tables of docs/performance.md and the README

Builds what it needs below --out, then times all contenders in turns. After Ctrl-C the same command goes on. Needs the
extras cpu and build, and a C++ compiler for torch.compile.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import click

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import json_option
from coolsd_rt.cli.paths import WRITES_IN
from coolsd_rt.cli.terminal import note, print_json, say, say_lines
from coolsd_rt.cli.terminal.progress import progress
from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.store.results import save

PACKAGES = {"torch": "build", "safetensors": "build", "onnx": "build", "onnxruntime": "cpu"}


@click.command()
@click.option("--only", metavar="NAME,...", help="Models: demo, b, xl. Default: all for which there is room.")
@click.option(
    "--turns", type=number(limits.RUNS), help="Turns of each contender. Default: 7 of the demo, 3 of b, 2 of xl."
)
@click.option(
    "--out",
    type=WRITES_IN,
    default=Path("out/performance"),
    show_default=True,
    help="Folder of weights, engines and unfinished runs; results.json is written there.",
)
@click.option("--publish", "published", is_flag=True, help="Write the tables of docs/performance.md and README.md.")
@threads_option("every contender")
@json_option
def command(
    only: str | None, turns: int | None, out: Path, published: bool, threads: int | None, as_json: bool
) -> None:
    """Time eager PyTorch, torch.compile, the official loop and our engines side by side, in one run.

    \b
    Example:
      python -m tools.performance --only demo --turns 3
    """
    for package, extra in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, "the comparison")
    from tools.performance.models import MODELS
    from tools.performance.pages import publish
    from tools.performance.run import Callbacks, Comparison, compare, finish
    from tools.performance.tables import listed

    names = [model.name for model in MODELS]
    wanted = names if only is None else [name.strip() for name in only.split(",")]
    for name in wanted:
        if name not in names:
            raise UserError("--only", expected=f"some of {', '.join(names)}", found=name)
    if published and set(wanted) != set(names):
        raise UserError("--publish", expected="all models", found=f"--only {only}", fix="leave out --only")
    asked = Comparison([m for m in MODELS if m.name in wanted], out, cores.threads_for(threads), turns)
    with progress(quiet=as_json) as work:
        found = compare(asked, Callbacks(note, lambda name, count: work.start(name, count, "turns"), work.advance))
    save(out / "results.json", (json.dumps(found, indent=1) + "\n").encode())
    finish(out)
    if as_json:
        print_json(found)
    else:
        for name, text in listed(found):
            say()
            say(name)
            say_lines(text)
    if published:
        for path in publish(found):
            note(f"written: {path}")


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()

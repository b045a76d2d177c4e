"""What 10, 100 and 1,000 GPUs amount to: `python -m tools.scale docs/scale/costs.json`.

Takes the figures that `tools.scale.measure` found on one machine, and assumptions for what was not measured there (each
is an option), and prints the tables of docs/scale.md. `--page` writes them into the page. Knows tables. Does not know
how the numbers come about (`reckoning`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from coolsd_rt.cli.entry import enter
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.output import json_option, print_json
from coolsd_rt.cli.paths import READS
from coolsd_rt.cli.terminal import say
from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.ranges import Range, whole
from coolsd_rt.store.atomic import write_atomic
from tools.scale.reckoning import Assumed, Measured, Reckoned, full_at, reckon

SIZES = (10, 100, 1000)
BEGIN, END = "<!-- tables: python -m tools.scale -->\n", "<!-- end -->\n"
_RANGES: dict[str, Range] = {
    "images_per_second": Range(1e-4, 1e4),
    "gpus_per_node": whole(1, 1024),
    "slots": whole(1, 4096),
    "engine_gb": Range(1e-3, 1e4),
    "side": whole(1, 16384),
    "bytes_per_pixel": Range(1e-3, 8.0),
    "gbit": Range(1e-2, 1e5),
    "gpu_hours_per_failure": Range(1.0, 1e9),
    "files_per_second": Range(1.0, 1e9),
}
_WORDS = {
    "images_per_second": "images a second of a GPU",
    "gpus_per_node": "GPUs, and replicas, of a machine",
    "slots": "slots of a replica",
    "engine_gb": "an engine folder, GB",
    "side": "side of an image, pixels",
    "bytes_per_pixel": "bytes of a PNG a pixel",
    "gbit": "network of a machine and of the storage, Gbit/s",
    "gpu_hours_per_failure": "GPU hours between two failures",
    "files_per_second": "files a second that a shared file system makes durable",
}
_ROWS: tuple[tuple[str, Callable[[Reckoned], str]], ...] = (
    ("machines", lambda one: f"{one.nodes}"),
    ("images a second", lambda one: f"{one.images_per_second:,.0f}"),
    ("images a day", lambda one: f"{one.images_per_day:,.0f}"),
    ("cores for the front", lambda one: f"{one.front_cores:.1f}"),
    ("answers, Gbit/s", lambda one: f"{one.answers_gbit:.2f}"),
    ("engine to all machines from one storage, s", lambda one: f"{one.store_once_seconds:,.0f}"),
    ("the same if machines copy from each other, s", lambda one: f"{one.copied_on_seconds:,.0f}"),
    ("engine checked by a replica, s", lambda one: f"{one.verify_seconds:.1f}"),
    ("memory of a machine beside its GPUs, GB", lambda one: f"{one.node_memory_gb:.1f}"),
    ("failures of GPUs a day", lambda one: f"{one.failures_per_day:.3f}"),
    ("images drawn again a day", lambda one: f"{one.images_again_per_day:.2f}"),
    ("capacity lost to starts", lambda one: f"{one.lost_share:.5%}"),
)


def tables(costs: Mapping[str, Any], assumed: Assumed) -> str:
    """Return the tables of the page. Raises KeyError for costs without a figure."""
    measured = Measured.of(costs)
    parts = [
        _table(["measured, of the demo on one machine", "plain server", "on Ray"], _measured_rows(costs)),
        _table(["assumed, not measured", ""], ((_WORDS[k], f"{v:,g}") for k, v in dataclasses.asdict(assumed).items())),
        _table(["GPUs", *(f"{size:,}" for size in SIZES)], _reckoned_rows(measured, assumed)),
        _table(
            ["what is full", "at GPUs"],
            ((name, f"{gpus:,.0f}") for name, gpus in full_at(measured, assumed).items()),
        ),
    ]
    return "\n".join(parts)


def _reckoned_rows(measured: Measured, assumed: Assumed) -> list[Sequence[str]]:
    found = [reckon(size, measured, assumed) for size in SIZES]
    return [(name, *(shown(one) for one in found)) for name, shown in _ROWS]


def _measured_rows(costs: Mapping[str, Any]) -> list[Sequence[str]]:
    def both(values: Mapping[str, float], scale: float, form: str) -> tuple[str, str]:
        return f"{values['plain'] * scale:{form}}", f"{values['ray'] * scale:{form}}"

    cpu = {name: sum(seconds for part, seconds in parts.items() if part != "replica")
           for name, parts in costs["cpu_image"].items()}  # fmt: skip
    idle = {name: sum(parts.values()) for name, parts in costs["idle_cores"].items()}
    memory = {name: sum(parts.values()) for name, parts in costs["memory"].items()}
    replica = {name: parts["replica"] for name, parts in costs["memory"].items()}
    batch = {name: one["images_per_second"] for name, one in costs["batch"].items()}
    around = {name: one["seconds_around"] for name, one in costs["batch"].items()}
    start = {"plain": costs["seconds_start_plain"], "ray": costs["seconds_start_on_ray"]}
    return [
        ("a request that draws nothing, ms", *both(costs["seconds_nothing"], 1e3, ".1f")),
        ("an image, one after another, ms", *both(costs["seconds_image"], 1e3, ".0f")),
        ("processor time of an image beside its replica, ms", *both(cpu, 1e3, ".0f")),
        ("images a second, four clients", *both(costs["images_per_second"], 1, ".2f")),
        ("cores while nobody asks", *both(idle, 1, ".3f")),
        ("start of the command, s", *both(start, 1, ".1f")),
        ("a replica that was killed draws again, s", "", f"{costs['seconds_replica']:.1f}"),
        ("memory of a replica, MB", *both(replica, 1e-6, ".0f")),
        ("memory of everything, MB", *both(memory, 1e-6, ".0f")),
        ("`batch`, images a second", *both(batch, 1, ".2f")),
        ("`batch`, seconds before and after", *both(around, 1, ".1f")),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for one in reversed(dataclasses.fields(Assumed)):
        name = f"--{one.name.replace('_', '-')}"
        kind = number(_RANGES[one.name])
        option = click.option(
            name, type=kind, default=one.default, show_default=True, help=f"Assumed: {_WORDS[one.name]}."
        )
        function = option(function)
    return function


@click.command()
@click.argument("costs", type=READS)
@click.option("--page", type=READS, help="Page whose tables are replaced.")
@_options
@json_option
def main(costs: Path, page: Path | None, as_json: bool, **values: Any) -> None:
    """Work out what 10, 100 and 1,000 GPUs amount to, from measured COSTS and assumptions."""
    assumed = Assumed(**values)
    data = read_json(costs, "the figures of tools.scale.measure", RESULT_BYTES)
    try:
        text, measured = tables(data, assumed), Measured.of(data)
    except (KeyError, TypeError) as error:
        fix, what = "make them: python -m tools.scale.measure ENGINE --out FILE", "the figures of tools.scale.measure"
        raise UserError(str(costs), expected=what, found=f"none of {error}", fix=fix) from error
    if page is not None:
        write_atomic(page, replaced(page.read_text(encoding="utf-8"), text).encode())
    if as_json:
        found = [dataclasses.asdict(reckon(size, measured, assumed)) for size in SIZES]
        print_json({"assumed": dataclasses.asdict(assumed), "reckoned": found, "full_at": full_at(measured, assumed)})
    else:
        for line in text.splitlines():
            say(line)


def replaced(page: str, text: str) -> str:
    """Return a page with other tables. Raises UserError if it has no place for them."""
    found = re.sub(
        re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: f"{BEGIN}\n{text}\n{END}", page, flags=re.DOTALL
    )
    if BEGIN not in page or END not in page:
        raise UserError("--page", expected=f"a page with {BEGIN.strip()} and {END.strip()}", found="none")
    return found


if __name__ == "__main__":
    enter(main)

"""`coolsd-rt schedule`."""

from __future__ import annotations

from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.numbers import Numbers, number
from coolsd_rt.cli.output import json_option, print_json, show_table
from coolsd_rt.errors import UserError
from coolsd_rt.law import SCHEDULES, make_omegas

_TAKES = {
    "exponential": ("delta", "nu"),
    "linear": ("delta",),
    "uniform": ("delta",),
    "excess": ("beta", "nu"),
    "none": (),
    "custom": ("values",),
}
_NEEDED = ("delta", "beta", "values")


@click.command()
@click.option("--kind", type=click.Choice(SCHEDULES), default="exponential", show_default=True, help="Schedule family.")
@click.option(
    "--length",
    type=number(limits.DRAFT_LENGTH),
    help="Number of draft positions. [default: 5, or the number of --values]",
)
@click.option(
    "--delta", type=number(limits.OMEGA), help="Mean of omega before the floor (exponential, linear, uniform)."
)
@click.option("--nu", type=number(limits.DECAY), help="Decay per position (exponential, excess).  [default: 0.7]")
@click.option("--beta", type=number(limits.OMEGA), help="First omega minus 1 (excess).")
@click.option(
    "--values", type=Numbers(limits.OMEGA), metavar="A,B,…", help="All omegas, one per draft position (custom)."
)
@click.option(
    "--floor",
    type=number(limits.OMEGA),
    help="Lower bound of omega. Default: none; in a spec, exponential and linear default to 1.",
)
@json_option
def command(kind: str, length: int | None, floor: float | None, as_json: bool, **values: Any) -> None:
    """Print the relaxation omega of each draft position of a schedule.

    \b
    Example:
      coolsd-rt schedule --kind exponential --delta 1.1 --nu 0.7 --length 5
    """
    given = {name: value for name, value in values.items() if value is not None}
    if length is None:
        length = len(given.get("values", ())) or 5
    takes = _TAKES[kind]
    for name in given:
        if name not in takes:
            wanted = " and ".join(f"--{t}" for t in takes) or "no option but --length and --floor"
            raise UserError(f"--kind {kind}", expected=wanted, found=f"--{name}", fix=f"leave --{name} out")
    for name in takes:
        if name in _NEEDED and name not in given:
            raise UserError(f"--kind {kind}", expected=f"--{name}", found="nothing", fix=f"add --{name}")
    omegas = make_omegas(kind, length, floor=floor, **given)  # type: ignore[arg-type]
    if as_json:
        mean = sum(omegas) / length if length else None
        print_json({"kind": kind, "length": length, **given, "floor": floor, "omegas": omegas, "mean": mean})
    else:
        show_table(("position", "omega"), [(i, f"{omega:.6g}") for i, omega in enumerate(omegas, start=1)])

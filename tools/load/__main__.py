"""Puts load on `coolsd-rt serve`: `python -m tools.load engines/emoji --scenario churn --json churn.json`.

Scenarios: steady (random arrivals, with the memory's slope), churn (clients that come and go), kill (kill -9 of the
engine's process), slow (slow readers and senders), malformed. Each starts a server of its own. Linux alone: memory and
children are read from /proc. Knows options. Does not know what a scenario does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, gathered, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal import print_json
from coolsd_rt.machine import machine
from coolsd_rt.ranges import Range
from coolsd_rt.store.outputs import check_output, write_output
from tools.load import scenarios
from tools.load.server import LoadedServer, served

MINUTES, COUNT = Range(0.1, 600.0), Range(1, 100_000)


@dataclass(frozen=True)
class _LoadOptions:
    """Values of the options."""

    engine: Path
    scenario: str
    minutes: float
    load: float
    count: int | None
    slots: int
    seed: int
    threads: int | None
    log: Path
    json_file: Path | None
    overwrite: bool


Scenario = Callable[[LoadedServer, _LoadOptions], Coroutine[Any, Any, dict[str, Any]]]
SCENARIOS: dict[str, Scenario] = {
    "steady": lambda server, given: scenarios.steady(server, given.load, given.minutes, given.slots, given.seed),
    "churn": lambda server, given: scenarios.churn(server, given.count or 500, given.seed),
    "kill": lambda server, given: scenarios.kill(server, 2 * given.slots, given.count or 5, given.seed),
    "slow": lambda server, given: scenarios.slow(server, given.count or 16, 10),
    "malformed": lambda server, given: scenarios.malformed(server, given.count or 10_000, given.seed),
}


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), required=True, help="What to do.")
@click.option("--minutes", type=number(MINUTES), default=30.0, show_default=True, help="Duration (steady).")
@click.option(
    "--load", type=number(Range(0.01, 2.0)), default=0.8, show_default=True, help="Share of capacity (steady)."
)
@click.option("--count", type=number(COUNT), help="Clients, kills, readers or requests.")
@click.option("--slots", type=number(limits.MAX_BATCH), default=4, show_default=True, help="Slots of the server.")
@click.option("--seed", type=number(limits.SEED), default=0, show_default=True, help="Of arrivals and requests.")
@threads_option()
@click.option("--log", type=WRITES, default=Path("serve.log"), show_default=True, help="File for the server's log.")
@click.option("--json", "json_file", type=WRITES, help="Write the figures to this file.")
@overwrite_option
@gathered(_LoadOptions)
def command(given: _LoadOptions) -> None:
    """Start a server, put load on it, and print the figures."""
    if given.json_file is not None:
        check_output(given.json_file, "--json", overwrite=given.overwrite)
    options = ["--slots", str(given.slots), "--log-format", "json"]
    if given.threads:
        options += ["--threads", str(given.threads)]
    with served(given.engine, options, given.log) as server:
        found = asyncio.run(SCENARIOS[given.scenario](server, given))
        found = {"scenario": given.scenario, **found, "exit_code": server.close()}
    found["machine"] = machine(cores.threads_for(given.threads))
    print_json(found)
    if given.json_file is not None:
        write_output(given.json_file, (json.dumps(found, indent=1) + "\n").encode(), overwrite=given.overwrite)


if __name__ == "__main__":
    enter(command)

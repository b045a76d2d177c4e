"""Slots beside batches, on the same arrivals: `python -m tools.load.arrivals engines/emoji`.

Images arrive at random (Poisson) and are drawn in this process, without HTTP, in two ways:

- slots: as `coolsd-rt serve` does, an image enters as soon as there is room;
- batches: whoever waits when the last batch ends, at most four, is the next batch. This is what a server around
  `drawing.draw` would be.

First both draw a list of images with all slots busy, in turns: the ratio of images a second. Then arrivals at shares of
the slots' rate: latency from arrival to pixels. A lone image's latency is measured beside them. Knows clocks and
queues. Does not know HTTP.

Legend: a load is the rate of arrivals as a share of what the slots draw when they are all busy.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import click
import numpy as np

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, gathered, overwrite_option
from coolsd_rt.cli.numbers import Numbers, number, threads_option
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal import note, say, show_table
from coolsd_rt.machine import machine
from coolsd_rt.ranges import Range
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import enough_jobs
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slot_plans import SlotPlans
from coolsd_rt.workflows.slots import SlotLoop

BATCH = 4
LOADS = Range(0.01, 2.0)


@dataclass(frozen=True)
class Subject:
    """An engine and a request. auto: the machine chooses the drafts, else they are as asked."""

    opened: OpenedEngine
    prepared: Prepared
    slots: int

    def decode(self, codes: Any) -> None:
        """Decode the images of codes [M, N]."""
        self.opened.engine.decode_images(codes)


class Policy(Protocol):
    """A way to draw what has arrived."""

    def arrive(self, jobs: Sequence[Job]) -> None:
        """Take images in."""
        ...

    @property
    def busy(self) -> bool:
        """Whether anything is to be done."""
        ...

    def work(self) -> list[int]:
        """Do some of it. Returns the indices of the images that are finished and decoded."""
        ...


class InSlots:
    """Images enter when there is room."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._loop = subject, SlotLoop(subject.opened, subject.slots)
        self._plans = SlotPlans(subject.opened, subject.slots)
        self._plans.measure()

    def arrive(self, jobs: Sequence[Job]) -> None:
        """See `Policy`."""
        in_flight = self._loop.running + self._loop.waiting + len(jobs)
        prepared = self._plans.prepared(self._subject.prepared, in_flight)
        for job in jobs:
            self._loop.enter(job.index, job, prepared.settings, may_drop_drafts=prepared.plan is not None)
        if not self._plans.drafts_pay(in_flight):
            self._loop.drop_drafts()

    @property
    def busy(self) -> bool:
        """See `Policy`."""
        return self._loop.busy

    def work(self) -> list[int]:
        """See `Policy`."""
        drawn = self._loop.step()
        for image in drawn:
            self._subject.decode(image.codes[None])
        return [image.ticket for image in drawn]


class InBatches:
    """At most `BATCH` of those that wait are drawn together, and are decoded when all of them are finished."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._waiting = subject, deque[Job]()

    def arrive(self, jobs: Sequence[Job]) -> None:
        """See `Policy`."""
        self._waiting += jobs

    @property
    def busy(self) -> bool:
        """See `Policy`."""
        return bool(self._waiting)

    def work(self) -> list[int]:
        """See `Policy`."""
        jobs = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        opened = self._subject.opened
        settings = self._subject.prepared.planned(enough_jobs(jobs, BATCH), BATCH).settings
        drawn = drawing.draw(opened.engine, jobs, opened.conditioner, settings)
        self._subject.decode(drawn.codes)
        return [job.index for job in jobs]


POLICIES: dict[str, Callable[[Subject], Policy]] = {"slots": InSlots, "batches": InBatches}


def run(policy: Policy, jobs: Sequence[Job], arrivals: Sequence[float]) -> tuple[list[float], float]:
    """Draw jobs that arrive at these seconds. Returns each one's latency, and the seconds until the last was done."""
    began, coming, latency = time.perf_counter(), deque(zip(arrivals, jobs, strict=True)), dict[int, float]()
    while coming or policy.busy:
        now = time.perf_counter() - began
        if coming and not policy.busy and coming[0][0] > now:
            time.sleep(coming[0][0] - now)
            continue
        due = sum(at <= now for at, _ in coming)
        if due:
            policy.arrive([coming.popleft()[1] for _ in range(due)])
        for index in policy.work():
            latency[index] = time.perf_counter() - began - arrivals[index]
    return [latency[job.index] for job in jobs], time.perf_counter() - began


def poisson(rate: float, images: int, seed: int) -> list[float]:
    """Return the seconds at which images arrive. rate: images a second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, images)
    return [float(at) for at in np.cumsum(gaps)]


def measure(subject: Subject, images: int, loads: Sequence[float], turns: int) -> dict[str, Any]:
    """Return JSON data of all figures."""
    texts = subject.opened.default_prompts()
    jobs = drawing.spread_jobs(texts, images, 0, subject.opened.conditioner)
    policies = {name: make(subject) for name, make in POLICIES.items()}
    for policy in policies.values():
        run(policy, jobs[:BATCH], [0.0] * BATCH)  # the first growth of caches
    alone = [run(policies["slots"], [job], [0.0])[0][0] for job in _each(jobs, 2 * turns)]
    note(f"a lone image: {median(alone):.2f} s")
    rates: dict[str, list[float]] = {name: [] for name in policies}
    for turn in range(turns):
        for name in _order(turn):
            rates[name].append(images / run(policies[name], jobs, [0.0] * images)[1])
        note(f"all slots busy, turn {turn + 1}: {rates['slots'][-1] / rates['batches'][-1]:.3f}x")
    capacity = median(rates["slots"])
    found: dict[str, dict[str, list[float]]] = {}
    for load in loads:
        found[str(load)] = {name: [] for name in policies}
        for turn in range(turns):
            arrivals = poisson(load * capacity, images, turn)
            for name in _order(turn):
                found[str(load)][name] += run(policies[name], jobs, arrivals)[0]
        note(f"load {load:g}: p50 {_of(found[str(load)], 'slots', 50):.2f} s of slots")
    return {"alone": alone, "images_per_second": rates, "capacity": capacity, "latency": found}


def _order(turn: int) -> list[str]:
    return list(POLICIES)[:: 1 if turn % 2 else -1]


def _each(jobs: Sequence[Job], count: int) -> Iterator[Job]:
    for k in range(count):
        yield Job(0, jobs[k % len(jobs)].prompt, k, jobs[k % len(jobs)].encoded)


def _of(latency: dict[str, list[float]], policy: str, percentile: float) -> float:
    return float(np.percentile(latency[policy], percentile))


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    rates, alone = found["images_per_second"], median(found["alone"])
    ratios = [a / b for a, b in zip(rates["slots"], rates["batches"], strict=True)]
    say(f"all slots busy: {found['capacity']:.3f} images a second, {median(ratios):.3f}x of batches of {BATCH}")
    say(f"a lone image: {alone:.2f} s")
    rows = []
    for load, latency in found["latency"].items():
        for name in POLICIES:
            p50, p99 = (_of(latency, name, percentile) for percentile in (50, 99))
            rows.append([f"{float(load):.0%}", name, f"{p50:.2f}", f"{p99:.2f}", f"{p50 / alone:.2f}"])
    show_table(["load", "drawn in", "p50 s", "p99 s", "p50 / alone"], rows)


@dataclass(frozen=True)
class _ArrivalOptions:
    """Values of the options."""

    engine: Path
    slots: int
    images: int
    loads: tuple[float, ...]
    turns: int
    plain: bool
    pacing: str | None
    delta: float | None
    threads: int | None
    json_file: Path | None
    overwrite: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--slots", type=number(limits.MAX_BATCH), default=BATCH, show_default=True, help="Images at once.")
@click.option("--images", type=number(limits.IMAGES), default=48, show_default=True, help="Images of each run.")
@click.option("--loads", type=Numbers(LOADS), default="0.5,0.8,0.95", show_default=True, help="Shares of capacity.")
@click.option("--turns", type=number(limits.IMAGES), default=3, show_default=True, help="Runs of each kind.")
@click.option("--plain", is_flag=True, help="Decode without drafts.")
@click.option("--pacing", type=click.Choice(["auto", "manual"]), help="As in generate.")
@click.option("--delta", type=number(limits.OMEGA), help="As in generate.")
@threads_option()
@click.option("--json", "json_file", type=WRITES, help="Write all figures to this file.")
@overwrite_option
@gathered(_ArrivalOptions)
def command(given: _ArrivalOptions) -> None:
    """Measure images a second and latency of slots beside batches of four."""
    if given.json_file is not None:
        check_output(given.json_file, "--json", overwrite=given.overwrite)
    opened = OpenedEngine.at(given.engine, threads=given.threads)
    schedule = None if given.delta is None else {"delta": given.delta}
    call = Call.of("any", {"plain": given.plain or None, "pacing": given.pacing, "schedule": schedule})
    subject = Subject(opened, Prepared.of(opened, call, call.names), given.slots)
    opened.load()
    found = measure(subject, given.images, given.loads, given.turns)
    show(found)
    if given.json_file is not None:
        asked = {"engine": opened.manifest.name, "slots": given.slots, "images": given.images, "plain": given.plain}
        document = {**asked, "machine": machine(cores.threads_for(opened.threads)), **found}
        write_output(given.json_file, (json.dumps(document, indent=1) + "\n").encode(), overwrite=given.overwrite)


if __name__ == "__main__":
    enter(command)

"""`coolsd-rt batch ENGINE PROMPTS --out DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from coolsd_rt import cores, limits
from coolsd_rt.cli.batch_screen import BatchScreen, show_batch
from coolsd_rt.cli.decoding_options import decoding_options, overrides_of
from coolsd_rt.cli.entry import gathered
from coolsd_rt.cli.numbers import ShardNumber, number, threads_option
from coolsd_rt.cli.options import reading_options
from coolsd_rt.cli.output import json_option, note, print_json
from coolsd_rt.cli.paths import ENGINE, READS, WRITES_IN
from coolsd_rt.cli.ray_options import ray_option
from coolsd_rt.cli.terminal.progress import progress
from coolsd_rt.cluster.locate import LOCAL
from coolsd_rt.errors import UserError

if TYPE_CHECKING:
    from coolsd_rt.batch.workers import PartWorkers


@dataclass(frozen=True)
class _BatchOptions:
    """Value of each option, by its name in click."""

    engine: Path
    prompts: Path
    out: Path
    kind: Literal["png", "parquet"]
    seed: int
    slots: int | None
    part_rows: int
    shard: tuple[int, int]
    ray: str | None
    workers: int | None
    draft_length: int | None
    plain: bool
    draft: str | None
    features: Path | None
    text_encoder: Path | None
    threads: int | None
    as_json: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.argument("prompts", type=READS)
@click.option("--out", type=WRITES_IN, required=True, help="Output folder: a new one, or that of the same job.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "parquet"]),
    default="png",
    show_default=True,
    help="A PNG file for each image, or a Parquet file for each part, with columns of provenance.",
)
@click.option(
    "--seed",
    type=number(limits.SEED),
    default=0,
    show_default=True,
    help="Random seed. Row k, from 0, has seed + k (modulo 2^64), unless it has its own.",
)
@click.option(
    "--slots", type=number(limits.MAX_BATCH), help="Images drawn at once; default: engine.max_batch of its spec."
)
@click.option(
    "--part-rows",
    type=number(limits.PART_ROWS),
    default=100,
    show_default=True,
    help="Rows of a part: of a Parquet file, or a folder of PNG files. Shards and workers take whole parts.",
)
@click.option(
    "--shard",
    type=ShardNumber(limits.JOB_SHARDS),
    default="1/1",
    show_default=True,
    help="Draw the i-th of n shards of the parts. All n may write into one folder, or each into its own.",
)
@ray_option
@click.option(
    "--workers",
    type=number(limits.RAY_WORKERS),
    help="Engines on the Ray cluster; default: as many as its cores allow. Each has --threads cores.",
)
@decoding_options
@reading_options
@threads_option()
@json_option
@gathered(_BatchOptions)
def command(given: _BatchOptions, **values: Any) -> None:
    """Draw the prompts of a file, thousands of them; continue where an earlier run of the same command ended.

    ENGINE is engines/NAME (its current build) or the folder of one fingerprint. PROMPTS is a .jsonl or .csv file with
    the columns prompt, id, seed and settings (guidance_scale, temperature, top_k, schedule, plain, ... as for `serve`),
    a .parquet file with the same columns, or a .txt file with one prompt a line. A row's own values come before the
    options. A row that cannot be drawn goes to failed.jsonl with the reason, and the rest goes on; the exit code is 0.

    An image is a function of its row, the options and the engine, and of the plan of --pacing auto, which is chosen
    once and kept in the output folder.

    \b
    Example:
      coolsd-rt batch engines/emoji prompts.jsonl --out out/job
      coolsd-rt batch engines/emoji prompts.parquet --out out/job --format parquet --shard 2/8
    """
    from coolsd_rt.batch.job import JobSettings  # what draws
    from coolsd_rt.batch.part import Shard
    from coolsd_rt.batch.run import BatchConfig, run_batch

    if given.ray is None and given.workers is not None:
        raise UserError("--workers", expected="--ray", found="none", fix="add --ray, or drop --workers")
    settings = JobSettings(given.seed, overrides_of(values), given.draft_length, given.plain, given.draft)
    config = BatchConfig(
        given.engine,
        given.prompts,
        given.out,
        settings,
        given.kind,
        given.part_rows,
        Shard(*given.shard),
        given.slots,
        given.threads,
        given.features,
        given.text_encoder,
    )
    with progress() as work:
        screen = BatchScreen(work)
        with _workers(given) as workers:
            try:
                report = run_batch(config, screen.callbacks(), workers)
            except KeyboardInterrupt:
                note(f"{screen.images} images are complete in {given.out}; the same command continues")
                raise
    if given.as_json:
        print_json(report.as_dict())
    else:
        show_batch(report)


@contextmanager
def _workers(given: _BatchOptions) -> Iterator[PartWorkers | None]:
    """Yield the workers of a Ray cluster; None: this process draws."""
    if given.ray is None:
        yield None
        return
    from coolsd_rt.cluster.batch import RayWorkers  # the extra `ray`
    from coolsd_rt.cluster.connect import connect

    wanted, here = given.workers or 1, cores.here().threads
    each = given.threads or max(1, here // wanted)
    if given.ray == LOCAL:
        _check_cores(here, each, wanted)
    with connect(given.ray, cpus=here) as cluster:
        most = _check_cores(int(cluster.cpus), each, wanted)
        yield RayWorkers(given.workers or most, each)


def _check_cores(there: int, each: int, wanted: int) -> int:
    """Return the workers that the cores of a cluster allow. Raises UserError if these are too few."""
    most = there // each
    if most < wanted:
        fix = f"give --workers {most}" if most else f"give --threads {there}"
        found = f"{there}, and {each} for each"
        raise UserError("--workers", expected=f"cores for {wanted} on the Ray cluster", found=found, fix=fix)
    return most

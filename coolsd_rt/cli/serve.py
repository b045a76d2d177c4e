"""`coolsd-rt serve ENGINE [ENGINE ...]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import json_option, note, print_json, say
from coolsd_rt.cli.paths import ENGINE, READS
from coolsd_rt.cli.ray_options import Replicas, ray_option, replica_options

if TYPE_CHECKING:
    from coolsd_rt.serve.facts import ServedEngine


@dataclass(frozen=True)
class _ServeOptions:
    """Value of each option, by its name in click."""

    engines: tuple[Path, ...]
    host: str
    port: int
    slots: int | None
    queue: int
    api_key_file: Path | None
    threads: int | None
    timeout: float
    ray: str | None
    replicas: int | None
    autoscale: str | None
    cpus_per_replica: int | None
    log_format: Literal["text", "json"]
    as_json: bool


@click.command()
@click.argument("engines", metavar="ENGINE...", nargs=-1, required=True, type=ENGINE)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of this machine."
)
@click.option(
    "--port", type=number(limits.PORT), default=8000, show_default=True, help="Port to listen on; 0 is any free one."
)
@click.option(
    "--slots",
    type=number(limits.MAX_BATCH),
    help="Images or texts that each engine makes at once; default: engine.max_batch of its spec.",
)
@click.option(
    "--queue",
    type=number(limits.QUEUE),
    default=64,
    show_default=True,
    help="Images or texts of each engine that may wait for a slot; a request beyond is answered with 429.",
)
@click.option(
    "--api-key-file",
    type=READS,
    help="File with the key that clients have to send; others may not read it. Default: no key.",
)
@threads_option("each engine")
@click.option(
    "--timeout",
    type=number(limits.REQUEST_SECONDS),
    default=300.0,
    show_default=True,
    help="Seconds that a request may take; a request may ask for less.",
)
@ray_option
@replica_options
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines of the log, on stderr: text, or a JSON object each.",
)
@json_option
@gathered(_ServeOptions)
def command(given: _ServeOptions) -> None:
    """Serve engines over HTTP, in the form of OpenAI's images, chat and completions API, with a page to draw at /.

    ENGINE is engines/NAME (its current build) or the folder of one fingerprint; its name is the model of requests, and
    a request without a model is for the first ENGINE that draws, or writes. Each engine runs in a process of its own,
    which is started again if it ends. The address is said on stdout once all engines are ready. SIGTERM and Ctrl-C
    finish what is drawn.
    With --ray each engine runs in several such processes, on one machine or several (docs/ray.md).

    \b
    Example:
      coolsd-rt serve engines/emoji
      coolsd-rt serve engines/emoji --ray --replicas 2
      curl http://127.0.0.1:8000/v1/images/generations -H "Content-Type: application/json" -d '{"prompt": "red apple"}'
    """
    from coolsd_rt.serve.facts import ServeConfig  # the extra `serve`
    from coolsd_rt.serve.run import ServeCallbacks, serve

    replicas = Replicas.of(given.ray, given.replicas, given.autoscale, given.cpus_per_replica, given.threads)
    config = ServeConfig(
        given.engines,
        given.host,
        given.port,
        given.slots,
        given.queue,
        given.api_key_file,
        given.threads,
        given.timeout,
        given.log_format == "json",
    )
    show = _show_json if given.as_json else _show
    callbacks = ServeCallbacks(note, lambda address, engines: show(address, engines, replicas))
    if given.ray is None or replicas is None:
        serve(config, callbacks)
        return
    from coolsd_rt.cluster.connect import set_environment
    from coolsd_rt.cluster.locate import locate

    address = locate(given.ray)
    set_environment(address)  # before Ray is imported
    from coolsd_rt.cluster.serving.run import RayPlan, serve_on_ray  # the extra `ray`

    serve_on_ray(config, RayPlan(address, replicas.least, replicas.most, replicas.cpus), callbacks)


def _show(address: str, engines: list[ServedEngine], replicas: Replicas | None) -> None:
    for engine in engines:
        slots = "1 slot" if engine.slots == 1 else f"{engine.slots} slots"
        each = " each" if replicas and replicas.most > 1 else ""
        slots = f"{replicas.said} with {slots}{each}" if replicas else slots
        say(f"{engine.name}: {address}, {slots}, {engine.queue} may wait")


def _show_json(address: str, engines: list[ServedEngine], replicas: Replicas | None) -> None:
    more = {"replicas": [replicas.least, replicas.most]} if replicas else {}
    data = [
        {"name": one.name, "fingerprint": one.fingerprint, "slots": one.slots, "queue": one.queue, **more}
        for one in engines
    ]
    print_json({"address": address, "engines": data})

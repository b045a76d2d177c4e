"""The application of Ray Serve: one deployment for the routes, and one for each engine.

`application` is what the command line runs and what a config file names (`import_path`). Engines are opened and hashed
where it is built; each replica compares its own folder with that.

Knows deployments and their options. Does not know HTTP or how an image is drawn.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from coolsd_rt.cluster.serving.arguments import ServingArguments, deployment_name
from coolsd_rt.cluster.serving.front import Front
from coolsd_rt.cluster.serving.replica import EngineReplica
from coolsd_rt.errors import UserError
from coolsd_rt.serve.checks import check_engines, read_key
from coolsd_rt.serve.facts import ServeConfig, ServedEngine
from coolsd_rt.serve.guard import MOST_CONNECTIONS
from coolsd_rt.serve.messages import pack

IMPORT_PATH = "coolsd_rt.cluster.serving.application:application"
FRONT = "front"
_SPARE = 100  # requests beyond the most that the front still tells so
_AFTER = 30.0  # seconds that a replica may take beyond the longest request, to end what it draws
_HEALTH: dict[str, Any] = {"health_check_period_s": 5, "health_check_timeout_s": 30}


def application(args: dict[str, Any]) -> Application:
    """Return the application for arguments as in `ServingArguments`.

    Raises UserError or CoolsdError as `check_engines`, `check_makes` and `read_key` do.
    """
    given = ServingArguments.of(args)
    engines = check_engines(_config(given), copies=0)
    check_makes(engines)
    read_key(Path(given.api_key_file) if given.api_key_file else None)
    return bind(given, engines)


def check_makes(engines: list[ServedEngine]) -> None:
    """Raise UserError for an engine that writes text: replicas pass on images alone."""
    for engine in engines:
        if engine.makes == "text":
            expected, found = "an engine that draws images", "one that writes text"
            folder = str(engine.opened.folder.folder)
            raise UserError(folder, expected=expected, found=found, fix="serve it without --ray")


def bind(given: ServingArguments, engines: list[ServedEngine]) -> Application:
    """Return the application for engines that were checked."""
    setups = [pack(replace(engine.setup, threads=given.cpus_per_replica)) for engine in engines]
    replicas = [_engine(given, engine).bind(setup) for engine, setup in zip(engines, setups, strict=True)]
    front: Any = serve.deployment(
        serve.ingress()(Front),
        name=FRONT,
        num_replicas=1,
        max_ongoing_requests=MOST_CONNECTIONS + _SPARE,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=given.timeout + _AFTER,
        max_surge_percent=100,  # a new one starts before the old one stops: it needs no core
        **_HEALTH,
    )
    return front.bind(given.model_dump(exclude_unset=True), setups, *replicas)  # type: ignore[no-any-return]


def _engine(given: ServingArguments, engine: ServedEngine) -> Any:
    """Return the deployment of an engine. Twice its slots may be asked of a replica: the others wait in the front."""
    options: dict[str, Any] = {"num_cpus": given.cpus_per_replica}
    if engine.opened.spec.engine.device == "cuda":
        options["num_gpus"] = 1
    more: dict[str, Any] = {"num_replicas": given.replicas}
    if given.autoscale is not None:
        least, most = given.autoscale
        scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": engine.slots}
        more = {"autoscaling_config": scaling}
    deployment: Any = serve.deployment(
        EngineReplica,
        name=deployment_name(engine.name),
        max_ongoing_requests=2 * engine.slots,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=given.timeout + _AFTER,
        **more,
        **_HEALTH,
    )
    return deployment


def _config(given: ServingArguments) -> ServeConfig:
    return ServeConfig(
        tuple(Path(engine) for engine in given.engines),
        slots=given.slots,
        queue=given.queue,
        timeout=given.timeout,
    )

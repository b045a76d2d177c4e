"""Runs the application on a Ray and stays with it: the log, signals, and the end.

SIGTERM or SIGINT: no new requests are taken, what runs is finished, the application is removed, the exit code is 0. A
second signal ends at once. If another command has deployed the application anew meanwhile, it is left alone.

Knows Ray Serve's commands and signals. Does not know routes or how an image is drawn.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from coolsd_rt import cores
from coolsd_rt.cluster.connect import Cluster, connect
from coolsd_rt.cluster.locate import LOCAL
from coolsd_rt.cluster.serving.application import FRONT, bind, check_makes
from coolsd_rt.cluster.serving.arguments import ServingArguments
from coolsd_rt.cluster.serving.ray_host import RUNNING
from coolsd_rt.cluster.serving.replica import problem_of
from coolsd_rt.errors import CoolsdError
from coolsd_rt.serve import checks
from coolsd_rt.serve.facts import ServeConfig, ServedEngine
from coolsd_rt.serve.log_lines import LogLines
from coolsd_rt.serve.run import ServeCallbacks

APPLICATION = "coolsd-rt"
_EVERY = 0.5  # seconds between two questions to the front
_PATIENCE = 5.0  # seconds for its answer
_SILENT = 3  # questions without an answer after which the front is thought lost
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


@dataclass(frozen=True)
class RayPlan:
    """Where replicas run and how many of each engine: `least` to `most`, with `cpus` cores each; None shares all."""

    address: str
    least: int = 1
    most: int = 1
    cpus: int | None = None


def serve_on_ray(config: ServeConfig, plan: RayPlan, callbacks: ServeCallbacks) -> None:
    """Serve until a signal ends it.

    Raises UserError, CoolsdError and MissingExtra as the checks and `connect` do, and if the engines cannot be loaded.
    """
    checks.read_key(config.api_key_file)
    own = plan.address == LOCAL
    engines = checks.check_engines(config, copies=plan.most if own else 0)
    check_makes(engines)
    processes = plan.most * len(engines)
    if own:
        config = replace(config, port=_free_port(config))
        plan = replace(plan, cpus=plan.cpus or max(1, cores.here().usable // processes))
    log = LogLines(callbacks.say, config.log_json)
    signals = _Signals(log)
    try:
        with connect(plan.address, cpus=processes * plan.cpus if plan.cpus else None) as cluster, signals.heard():
            plan = replace(plan, cpus=plan.cpus or max(1, int(cluster.cpus) // processes))
            _Running(_arguments(config, plan, engines), engines, log, signals).run(config, cluster, callbacks)
    finally:
        log.close()
    if signals.count > 1:
        sys.exit(128 + signals.last)


def _free_port(config: ServeConfig) -> int:
    """Return the port. Serve's proxies share a port that is in use: it has to be asked for before."""
    with checks.bind(config.host, config.port) as sock:
        return int(sock.getsockname()[1])


def _arguments(config: ServeConfig, plan: RayPlan, engines: list[ServedEngine]) -> ServingArguments:
    scaled = plan.least < plan.most
    return ServingArguments(
        engines=[engine.setup.folder for engine in engines],
        slots=config.slots,
        queue=config.queue,
        timeout=config.timeout,
        api_key_file=str(config.api_key_file.resolve()) if config.api_key_file else None,
        cpus_per_replica=plan.cpus or 1,
        local=checks.is_loopback(config.host),
        log_json=config.log_json,
        **({"autoscale": [plan.least, plan.most]} if scaled else {"replicas": plan.most}),
    )


class _Signals:
    """How many signals were sent, and the last one."""

    def __init__(self, log: LogLines) -> None:
        self._log = log
        self.count = self.last = 0

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM for as long as the context lasts."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._on_signal) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.count, self.last = self.count + 1, number
        name = signal.Signals(number).name
        if self.count > 2:
            return
        self._log.info("draining" if self.count == 1 else "ended at once", signal=name)


class _Running:
    """An application that runs."""

    def __init__(
        self, arguments: ServingArguments, engines: list[ServedEngine], log: LogLines, signals: _Signals
    ) -> None:
        self._arguments, self._engines, self._log, self._signals = arguments, engines, log, signals
        self._deployed = 0.0
        self._told_ready = self._skips = False
        self._heard: dict[str, int] = {}  # by front, the number of its last line

    def run(self, config: ServeConfig, cluster: Cluster, callbacks: ServeCallbacks) -> None:
        """Deploy, stay, and remove what was deployed. Raises CoolsdError if an engine cannot be loaded."""
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        self._log.info("ray", address=cluster.address, cpus=cluster.cpus, own=cluster.own)
        needed = self._arguments.least * len(self._engines) * self._arguments.cpus_per_replica
        if needed > cluster.cpus:  # it may grow; Ray waits for that, and says nothing
            self._log.error("too few cores: replicas wait for more", cores=cluster.cpus, needed=needed)
        address = self._start(config, cluster)
        try:
            self._log.info("listening", address=address, engines=",".join(one.name for one in self._engines))
            while not self._signals.count:
                self._look(lambda: callbacks.on_ready(address, self._engines), cluster.own)
                time.sleep(_EVERY)
            self._drain()
        finally:
            self._remove()
            self._log.info("ended")

    def _start(self, config: ServeConfig, cluster: Cluster) -> str:
        """Start Serve if it does not run, and deploy. Returns the address."""
        logs = LoggingConfig(enable_access_log=False, log_level="ERROR")
        where: Any = "HeadOnly" if cluster.own else "EveryNode"
        serve.start(where, {"host": config.host, "port": config.port}, logging_config=logs)
        self._skips = self._last_deployed() > 0  # lines of the front that was there before
        host, port = _http(config)
        if (host, port) != (config.host, config.port):
            self._log.info("Serve runs already, with its own host and port", host=host, port=port)
        # Host is checked where the proxies listen, which an earlier command may have decided.
        self._arguments = self._arguments.model_copy(update={"local": checks.is_loopback(host)})
        target = serve.RunTarget(
            target=bind(self._arguments, self._engines), name=APPLICATION, route_prefix="/", logging_config=logs
        )
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        self._deployed = self._last_deployed()
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _last_deployed(self) -> float:
        app = serve.status().applications.get(APPLICATION)
        return app.last_deployed_time_s if app is not None else 0.0

    def _is_ours(self) -> bool:
        """Whether nobody has deployed the application anew."""
        return self._deployed > 0 and self._last_deployed() == self._deployed

    def _remove(self) -> None:
        """Remove the application if it is ours."""
        try:
            if self._is_ours():
                serve.delete(APPLICATION, _blocking=self._signals.count < 2)
        except Exception as error:  # the cluster is gone, and the application with it
            self._log.error("the application was not removed", problem=type(error).__name__)

    def _look(self, on_ready: Any, one_node: bool) -> None:
        """Pass on the log, and say once that all engines are ready. Raises CoolsdError if the application failed.

        one_node: what one replica cannot load none can, so that there is nothing to wait for.
        """
        told = self._ask()
        if self._told_ready:
            return
        app = serve.status().applications.get(APPLICATION)
        if app is None:
            return
        least = self._arguments.least
        if (
            told is not None
            and all(one["replicas"].get(RUNNING, 0) >= least for one in told["engines"])
            and app.status == "RUNNING"
        ):
            self._told_ready = True
            on_ready()
        elif one_node or app.status in _FAILED:
            self._check(app)

    def _check(self, app: Any) -> None:
        reports = [app.message, *(one.message for one in app.deployments.values())]
        for report in reports:
            if (problem := problem_of(report)) is not None:
                raise CoolsdError("engine", expected="one that every node loads", found=problem[1])
        if app.status not in _FAILED:
            return
        found = " ".join(app.message.split())[-400:] or app.status
        raise CoolsdError("the application on Ray", expected="one that starts", found=found)

    def _ask(self, drain: bool = False) -> dict[str, Any] | None:
        """Return what the front tells; None if it does not."""
        try:
            handle = serve.get_deployment_handle(FRONT, APPLICATION)
            told: dict[str, Any] = json.loads(handle.tell.remote(self._heard, drain).result(timeout_s=_PATIENCE))
        except Exception:  # it starts, or is replaced, or its node is lost: the next question will tell
            return None
        for number, line in told["lines"]:
            self._heard[told["front"]] = number
            if not self._skips:
                self._log.line(line)
        self._skips = False
        return told

    def _drain(self) -> None:
        """Finish what runs. The port stays open meanwhile, to say that the server is about to end."""
        end, silent = time.monotonic() + self._arguments.timeout, 0
        while self._is_ours() and self._signals.count < 2 and time.monotonic() < end:
            told = self._ask(drain=True)
            silent = silent + 1 if told is None else 0
            if silent > _SILENT or (told is not None and not (told["images"] or told["calls"])):
                return
            time.sleep(_EVERY / 5)


def _http(config: ServeConfig) -> tuple[str, int]:
    """Return where Serve's proxies listen: its first user has decided that."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    found = client.http_config if client is not None else None
    return (found.host or config.host, found.port) if found is not None else (config.host, config.port)

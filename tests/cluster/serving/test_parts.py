"""Parts of serving with Ray that need no Ray: arguments, the files of docs/ray, retries of an image."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from coolsd_rt.cluster.locate import locate
from coolsd_rt.cluster.serving import application as building
from coolsd_rt.cluster.serving.arguments import ServingArguments
from coolsd_rt.cluster.serving.engine_thread import EngineEnded, EngineThread
from coolsd_rt.cluster.serving.ray_host import MOST_LOST, RayHost
from coolsd_rt.cluster.serving.replica import ANOTHER, EngineNotLoaded, problem_of
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.serve import messages
from coolsd_rt.serve.checks import check_engines
from coolsd_rt.serve.drawer import Draw, ImageOrder, NotReady, QueueFull
from coolsd_rt.serve.facts import ServeConfig, ServedEngine
from coolsd_rt.serve.log_lines import LogLines
from coolsd_rt.serve.messages import (
    DrawMessage,
    FailedMessage,
    FinalMessage,
    OfOrder,
    PartialMessage,
    ProgressMessage,
    pack,
)
from coolsd_rt.store import EngineFolder
from tools import kuberay_schema

DOCS = Path(__file__).parents[3] / "docs" / "ray"
FINAL = FinalMessage(1, {"seconds": 0.1, "seconds_decode": 0.1}, {}, [], 2, 1, b"rgb")


def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCS / "serve.yaml").read_text("utf-8"))
    return found


def test_the_config_file_is_one_of_ray_serve(tiny_engine: EngineFolder) -> None:
    """Every field is known to Ray, and the application that it names is built from its args."""
    read = ServeDeploySchema.model_validate(config())
    (app,) = read.applications
    assert set(config()) <= set(ServeDeploySchema.model_fields)
    assert set(config()["applications"][0]) <= set(type(app).model_fields)
    assert app.import_path == building.IMPORT_PATH
    assert ServingArguments.of(app.args).engines == ["/srv/engines/emoji"]
    built = building.application({**app.args, "engines": [str(tiny_engine.folder)]})
    assert isinstance(built, Application)


def test_the_manifest_has_the_same_application() -> None:
    manifest = yaml.safe_load((DOCS / "rayservice.yaml").read_text("utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    assert yaml.safe_load(manifest["spec"]["serveConfigV2"]) == config()


def test_a_manifest_is_checked_against_a_definition() -> None:
    """A definition in small: numbers or words, fields that nobody knows, and another kind."""
    inner = {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": True}}}
    schema = {"type": "object", "properties": {"apiVersion": {}, "kind": {}, "metadata": {}, "spec": inner}}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]
    definition = {"spec": {"group": "ray.io", "names": {"kind": "RayService"}, "versions": versions}}
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "x"}, "spec": {"port": "http"}}
    assert kuberay_schema.problems(manifest, definition) == []
    assert len(kuberay_schema.problems({**manifest, "spec": {"ports": 1}}, definition)) == 1
    with pytest.raises(UserError, match=r"RayService, found ray\.io/v2"):
        kuberay_schema.problems({**manifest, "apiVersion": "ray.io/v2"}, definition)
    with pytest.raises(UserError, match="expected a manifest and a CustomResourceDefinition"):
        kuberay_schema.problems([], definition)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "engines: "),
        ({"engines": []}, "engines: "),
        ({"engines": ["x"], "replicas": 0}, "replicas: expected a whole number from 1 to 65536"),
        ({"engines": ["x"], "replicas": "2"}, "replicas: "),
        ({"engines": ["x"], "replica": 2}, "replica: "),
        ({"engines": ["x"], "autoscale": [2, 1]}, "the least number of replicas is above the most"),
        ({"engines": ["x"], "autoscale": [1, 2], "replicas": 1}, "exclude each other"),
        ({"engines": ["x"], "timeout": 0}, "timeout: "),
    ],
)
def test_arguments_that_are_wrong(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        ServingArguments.of(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reason_passes_through_rays_report() -> None:
    error = EngineNotLoaded("a node has another build of it", "node 10.0.0.1: /srv/x: expected this, found that")
    report = f'The deployment failed to start.\n\x1b[36mray::init()\x1b[39m\n  File "x"\nRuntimeError: {error}\n'
    assert problem_of(report) == (
        "a node has another build of it",
        "node 10.0.0.1: /srv/x: expected this, found that",
    )
    assert problem_of("The deployment failed to start.") is None


@pytest.fixture(scope="module")
def served(tiny_engine: EngineFolder) -> ServedEngine:
    (engine,) = check_engines(ServeConfig((tiny_engine.folder,), slots=2, queue=4))
    return engine


class Answers:
    """In place of a deployment's handle: what each replica answers in turn; an exception is its end."""

    def __init__(self, *answers: list[bytes | Exception]) -> None:
        self.answers, self.asked = list(answers), 0

    def options(self, **_: object) -> Answers:
        return self

    def remote(self, *_: object) -> Answer:
        self.asked += 1
        return Answer(self.answers.pop(0) if self.answers else [RuntimeError("gone")])


class Answer:
    def __init__(self, items: list[bytes | Exception]) -> None:
        self._items = items

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        """Nothing to do."""


async def drawn(served: ServedEngine, answers: Answers) -> tuple[list[OfOrder], RayHost]:
    lines: list[str] = []
    host = RayHost(served, answers, 2, LogLines(lines.append, True))
    host.samples = ["red apple"]
    await host.look({"RUNNING": 2}, "")
    host.check_room(1)
    got: list[OfOrder] = []
    draw = host.draw(ImageOrder("red apple", {}, 3, True))
    while not got or not isinstance(got[-1], FinalMessage | FailedMessage):
        got.append(await asyncio.wait_for(draw.next(), 10))
    return got, host


def progress(decided: int) -> bytes:
    return pack(ProgressMessage(1, decided, [1], [2], 0.1))


def partial(rows: int) -> bytes:
    return pack(PartialMessage(1, rows, 1, b"rgb"))


def test_what_was_told_is_not_told_again(served: ServedEngine) -> None:
    """A replica is lost after row 2; another draws the image from its start."""
    answers = Answers(
        [progress(10), partial(1), progress(20), partial(2), RuntimeError("lost")],
        [ANOTHER],
        [progress(9), partial(1), progress(19), partial(2), progress(29), partial(3), pack(FINAL)],
    )
    got, host = asyncio.run(drawn(served, answers))
    assert [message.rows for message in got if isinstance(message, PartialMessage)] == [1, 2, 3]
    assert [m.decided for m in got if isinstance(m, ProgressMessage)][-1] == 29
    assert isinstance(got[-1], FinalMessage)
    assert (host.retries, answers.asked, host.running, host.waiting) == (1, 3, 0, 0)


def test_an_image_that_loses_every_replica_fails(served: ServedEngine) -> None:
    answers = Answers()
    got, host = asyncio.run(drawn(served, answers))
    assert [type(message) for message in got] == [FailedMessage]
    assert (answers.asked, host.retries) == (MOST_LOST + 1, MOST_LOST)


def test_room_is_that_of_the_replicas_that_run(served: ServedEngine) -> None:
    async def look() -> None:
        host = RayHost(served, Answers(), 2, LogLines(lambda _: None, True))
        host.samples = ["red apple"]
        with pytest.raises(NotReady):
            host.check_room(1)
        await host.look({"RUNNING": 1, "STARTING": 1}, "")
        host.check_room(6)
        with pytest.raises(QueueFull):
            host.check_room(7)
        await host.look({"RUNNING": 2}, "")
        host.check_room(8)
        assert host.room == 8
        await host.look({"STARTING": 2}, str(EngineNotLoaded("a node does not have its folder", "node x: y")))
        assert (host.state, host.reason) == ("restarting", "a node does not have its folder")

    asyncio.run(look())


def test_an_engine_in_a_thread(served: ServedEngine) -> None:
    async def draw_two() -> None:
        engine = EngineThread(served.setup)
        assert engine.samples
        draws = [engine.draw(DrawMessage(0, "red apple", {"seed": seed, "plain": True})) for seed in (1, 2)]
        finals = [await _last(draw) for draw in draws]
        assert all(isinstance(final, FinalMessage) for final in finals)
        engine.stop()
        while engine.alive:
            await asyncio.sleep(0.01)
        with pytest.raises(EngineEnded):
            engine.draw(DrawMessage(0, "red apple", {}))

    asyncio.run(draw_two())


async def _last(draw: Draw) -> OfOrder:
    while True:
        message = await asyncio.wait_for(draw.next(), 30)
        if isinstance(message, FinalMessage | FailedMessage | messages.RefusedMessage):
            return message


def test_an_engine_of_another_build_is_not_loaded(served: ServedEngine) -> None:
    from dataclasses import replace

    with pytest.raises(CoolsdError, match="found another"):
        EngineThread(replace(served.setup, fingerprint="0" * 16))


def test_auto_is_the_address_that_ray_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another address of this machine, where a Ray on loopback does not listen."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert locate("auto") == "127.0.0.1:6379"
    assert locate("ray://127.0.0.1:1") == "ray://127.0.0.1:1"

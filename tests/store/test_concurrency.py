"""Two builds at once end as one; a build killed anywhere leaves nothing that looks whole."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from coolsd_rt.errors import CoolsdError
from coolsd_rt.store import Stage, Store, open_engine
from tests.store.conftest import left_over, toy_build, toy_stage, toy_write

FORK = multiprocessing.get_context("fork")


def _slow(log: Path) -> Callable[[Stage], Callable[[Path], Mapping[str, Any]]]:
    def for_stage(stage: Stage) -> Callable[[Path], Mapping[str, Any]]:
        def produce(folder: Path) -> Mapping[str, Any]:
            with log.open("a") as f:
                f.write(f"{stage.name}\n")
            sleep(0.2)  # long enough for the others to arrive
            return toy_write(stage)(folder)

        return produce

    return for_stage


def _builder(out: Path, log: Path, start: Barrier, results: Queue[Any]) -> None:
    start.wait()
    engine = toy_build(out, produce=_slow(log))
    engine.verified()
    results.put((engine.manifest.fingerprint, engine.manifest.created))


def test_builds_at_once_end_as_one(out: Path, tmp_path: Path) -> None:
    log, n = tmp_path / "log", 3
    start, results = FORK.Barrier(n), FORK.Queue()
    workers = [FORK.Process(target=_builder, args=(out, log, start, results)) for _ in range(n)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=300) for _ in workers}
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(found) == 1, "all got the same engine, made once"
    assert sorted(log.read_text().split()) == ["draft", "target"], "each stage ran once"
    assert len([p for p in (out / "toy").iterdir() if p.is_dir()]) == 1
    assert left_over(out) == []


def test_waiting_is_said(out: Path) -> None:
    holding, release = FORK.Event(), FORK.Event()

    def hold() -> None:
        def produce(folder: Path) -> None:
            holding.set()
            release.wait(300)

        Store(out).stage(toy_stage("target"), produce)

    def on_wait(name: str) -> None:
        waited.append(name)
        release.set()

    worker = FORK.Process(target=hold)
    worker.start()
    holding.wait(300)
    waited: list[str] = []
    done = Store(out).stage(toy_stage("target"), toy_write(toy_stage("target")), on_wait=on_wait)
    worker.join()
    assert waited == [toy_stage("target").id]
    assert not done.fresh


def _die_at(step: int) -> None:
    """From here on, the process kills itself just before its `step`-th change of the disk."""
    count = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("fsync", "rename", "replace", "link", "mkdir"):
        setattr(os, name, wrap(getattr(os, name)))
    Path.write_bytes = wrap(Path.write_bytes)  # type: ignore[method-assign]


def _build_and_die(out: Path, step: int, changes: dict[str, Any]) -> None:
    _die_at(step)
    toy_build(out, **changes)


def _killed(out: Path, step: int, changes: dict[str, Any]) -> bool:
    worker = FORK.Process(target=_build_and_die, args=(out, step, changes))
    worker.start()
    worker.join()
    assert worker.exitcode in (0, -signal.SIGKILL)
    return worker.exitcode != 0


@pytest.mark.parametrize("before", [False, True], ids=["first build", "over an older one"])
def test_killed_at_any_step(tmp_path: Path, before: bool) -> None:
    steps = 0
    while True:
        steps += 1
        out = tmp_path / str(steps)
        old = toy_build(out, draft="old") if before else None
        if not _killed(out, steps, {}):
            break
        try:
            found = open_engine(out / "toy")
        except CoolsdError:
            assert old is None, "the older build has to stay"
        else:
            found.verified()
        for folder in (out / "toy").glob("*/"):
            open_engine(folder).verified()
        engine = toy_build(out)
        engine.verified()
        assert open_engine(out / "toy").manifest == engine.manifest
        assert left_over(out) == []
    assert steps > 15, "the steps were counted"


def test_killed_while_replacing_a_broken_engine(tmp_path: Path) -> None:
    for step in range(1, 40):
        out = tmp_path / str(step)
        broken = toy_build(out).folder / "draft.onnx"
        broken.unlink()
        broken.write_bytes(b"changed")
        killed = _killed(out, step, {})
        try:
            open_engine(out / "toy").verified()
        except CoolsdError:
            assert killed
        toy_build(out).verified()
        assert left_over(out) == []
        if not killed:
            return
    raise AssertionError("never finished")

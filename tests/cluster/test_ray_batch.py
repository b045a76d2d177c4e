"""`coolsd-rt batch --ray` on a real Ray of this machine: the files of a run without it, though a worker is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.store import EngineFolder
from tests.batch.batching import batch, files, plain_rows, start, write_jsonl
from tests.cluster.serving.clusters import descendants, title

pytest.importorskip("ray")
MANUAL = ("--pacing", "manual", "--draft-length", 2)


def _workers_of(process: int) -> list[int]:
    """The processes of Ray's actors below a process."""
    return [pid for pid in descendants(process) if title(pid).startswith("ray::MapWorker")]


def test_ray_writes_the_same_files_though_a_worker_is_killed(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    rows: list[Any] = [*plain_rows(600), "{", {"prompt": "rocket", "seed": -1}]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    words = (tiny_engine.folder, path, "--part-rows", 40, "--format", "parquet", *MANUAL, "--threads", 1, "--json")
    here = batch(*words, "--out", tmp_path / "here")
    assert here.code == 0, here.err
    ray = start(*words, "--out", tmp_path / "ray", "--ray", "--workers", 2)
    deadline, killed = time.monotonic() + 90, 0
    while ray.poll() is None and time.monotonic() < deadline and not killed:
        if list(tmp_path.glob("ray/parts/*.json")) and (workers := _workers_of(ray.pid)):
            os.kill(workers[0], signal.SIGKILL)
            killed = workers[0]
        time.sleep(0.01)
    out, err = ray.communicate(timeout=120)
    assert ray.returncode == 0, err
    assert killed, "the job was over before a worker could be killed"
    assert '"images": 600' in out
    assert '"failed": 2' in out
    assert files(tmp_path / "ray") == files(tmp_path / "here")


def test_an_engine_that_a_worker_does_not_have_is_one_line(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    from coolsd_rt.batch.job import JobOrder, JobSettings
    from coolsd_rt.batch.part import Part
    from coolsd_rt.batch.prompts_file import FileRow
    from coolsd_rt.cluster.batch import PartActor

    for folder, fingerprint in ((tmp_path / "missing", "0" * 16), (tiny_engine.folder, "0" * 16)):
        order = JobOrder(str(folder), fingerprint, str(tmp_path / "out"), "png", JobSettings())
        part = Part(0, (FileRow(0, "line 1", {"prompt": "rocket"}),))
        (answer,) = PartActor(order.as_json(), 1)({"part": [0], "rows": [part.as_json()]})["answer"]
        assert str(folder) in answer
        assert "error" in answer
        assert not (tmp_path / "out").exists()


def test_an_address_that_does_not_answer_is_one_line(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(2))
    for address in ("127.0.0.1:1", "nonsense", "ray://127.0.0.1:1"):
        done = batch(tiny_engine.folder, path, "--out", tmp_path / "out", "--ray", address)
        assert done.code == 2, done.err
        assert len(done.err.splitlines()) == 1, done.err
        assert not (tmp_path / "out").exists()


def test_more_workers_than_cores_are_refused(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(2))
    done = batch(tiny_engine.folder, path, "--out", tmp_path / "out", "--ray", "--workers", 9000, "--threads", 1)
    assert done.code == 2, done.err
    assert "--workers" in done.err
    assert not (tmp_path / "out").exists()

"""One server on two replicas for the tests that only ask."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coolsd_rt import Pipeline
from coolsd_rt.store import EngineFolder

pytest.importorskip("ray")
pytest.importorskip("fastapi")

from tests.cluster.serving.clusters import RayServer


@pytest.fixture(scope="session", autouse=True)
def _folder_of_ray() -> Iterator[None]:
    """Ray's sockets have names of their own length limit: a short folder, for all servers of these tests."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    RayServer.variables["RAY_TMPDIR"] = folder
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def folder(tiny_engine: EngineFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine that is served, in a folder that a test may change."""
    folder = tmp_path_factory.mktemp("engines") / "tiny" / tiny_engine.manifest.fingerprint
    shutil.copytree(tiny_engine.folder, folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, _folder_of_ray: None) -> Iterator[RayServer]:
    """Two replicas with two slots each, 24 may wait."""
    running = RayServer(folder, "--replicas", 2, "--slots", 2, "--queue", 24)
    yield running
    running.close()


@pytest.fixture(scope="session")
def pipe(tiny_engine: EngineFolder) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_engine.folder, threads=1) as loaded:
        yield loaded

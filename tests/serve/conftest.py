"""One server for all tests that only ask, and servers of their own for those that end them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock

from coolsd_rt import Pipeline
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from tests.stages import built
from tests.workflows.building import edit
from tests.workflows.family_pipelines import write_pipeline

pytest.importorskip("fastapi")

from tests.serve.serving import RunningServer, serving

Start = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def server(tiny_engine: EngineFolder) -> Iterator[RunningServer]:
    """Two slots, 64 may wait, no key."""
    with serving(tiny_engine.folder, "--slots", 2) as running:
        yield running


@pytest.fixture
def start(tiny_engine: EngineFolder) -> Iterator[Start]:
    """start(*options, engine=...): a server that the test may end."""
    with ExitStack() as stack:

        def begin(*options: object, engine: Path | None = None) -> RunningServer:
            return stack.enter_context(serving(engine or tiny_engine.folder, *options))

        yield begin


@pytest.fixture(scope="session")
def pipe(tiny_engine: EngineFolder) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_engine.folder, threads=1) as loaded:
        yield loaded


def _written_engines(folder: Path) -> list[EngineFolder]:
    """Build the engines of `text_engines`; what is built already is taken as it is."""
    spec = write_pipeline(folder, "llama")
    edit(spec, "cfg_scale: 2.0, top_k: 12", "top_k: 12")
    edit(spec, 'end: ["<pad>"]', 'end: ["<pad>", "<s>", "of"]')
    edit(spec, "name: family", "name: writer")
    writer = built(load_spec(spec), folder / "engines")
    edit(spec, "name: writer", "name: reader")
    edit(spec, "chat_template: chat.jinja, ", "")
    return [writer, built(load_spec(spec), folder / "engines")]


@pytest.fixture(scope="session")
def text_engines(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> list[EngineFolder]:
    """Two engines that write text: `writer` reads chats, and `reader` has no chat template. Read only."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    if not hasattr(pytestconfig, "workerinput"):
        return _written_engines(tmp_path_factory.mktemp("texts"))
    shared = tmp_path_factory.getbasetemp().parent / "texts"  # of all workers
    with FileLock(shared.with_suffix(".lock")):
        return _written_engines(shared)


@pytest.fixture(scope="session")
def text_server(tiny_engine: EngineFolder, text_engines: list[EngineFolder]) -> Iterator[RunningServer]:
    """Three engines: `writer`, `reader`, and `tiny`, which draws images. Two slots each, no key."""
    writer, reader = text_engines
    with serving(writer.folder, reader.folder, tiny_engine.folder, "--slots", 2) as running:
        yield running


@pytest.fixture(scope="session")
def text_pipe(text_engines: list[EngineFolder]) -> Iterator[Pipeline]:
    with Pipeline.load(text_engines[0].folder, threads=1) as loaded:
        yield loaded

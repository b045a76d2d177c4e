"""One server for all tests that only ask, and servers of their own for those that end them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coolsd_rt import Pipeline
from coolsd_rt.store import EngineFolder

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

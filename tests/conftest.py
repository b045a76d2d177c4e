"""For all tests: property tests without deadlines, and a tiny pipeline that is built once.

torch is imported when a fixture is used: tests of the base install run without it.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so, and children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from coolsd_rt.backends.torch_eager import TorchEngine

settings.register_profile("shared", deadline=None)  # a shared machine may be slow at any moment
settings.load_profile("shared")


@pytest.fixture(scope="session")
def tiny_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec with its files. Read only: copy its folder to change something."""
    pytest.importorskip("torch")
    from tests.tiny import write_spec

    return write_spec(tmp_path_factory.mktemp("tiny") / "spec")


@pytest.fixture(scope="session")
def tiny_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder that `tiny_engine` and `tiny_engine_int8` are built into. Read only."""
    return tmp_path_factory.mktemp("tiny") / "engines"


@pytest.fixture(scope="session")
def tiny_engine(tiny_spec: Path, tiny_out: Path) -> EngineFolder:
    """The spec, built in fp32 by the real build. Read only."""
    return _built(tiny_spec, tiny_out, "fp32")


@pytest.fixture(scope="session")
def tiny_engine_int8(tiny_spec: Path, tiny_out: Path, tiny_engine: EngineFolder) -> EngineFolder:
    """The same in int8, beside it."""
    return _built(tiny_spec, tiny_out, "int8")


@pytest.fixture(scope="session")
def tiny_reference(tiny_spec: Path) -> TorchEngine:
    """The eager networks with the spec's weights."""
    from coolsd_rt.backends.torch_eager import load

    files = load_spec(tiny_spec).files
    return load(files["target.weights"], files["draft.weights"], files["image.weights"])


def _built(spec: Path, out: Path, precision: str) -> EngineFolder:
    from coolsd_rt.workflows.build import build, plan, with_precision

    return build(plan(with_precision(load_spec(spec), precision), out)).engine

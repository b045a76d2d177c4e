"""The command line, called as a function, and a verb made up on the spot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.cli.output import json_option
from coolsd_rt.workflows import opening
from tests.workflows.conftest import build_fake
from tests.workflows.fakes import FakeEngine


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]
Verb = Callable[[Callable[[], None]], None]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """cli("validate", path): exit code and what stood on stdout and stderr."""

    def call(*args: object) -> Result:
        code = run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Verb:
    """verb(body): from now on `coolsd-rt build` does this."""

    def install(body: Callable[[], None]) -> None:
        module: Any = ModuleType("coolsd_rt.cli.build")

        @click.command()
        @json_option
        def command(as_json: bool) -> None:
            body()

        module.command = command
        monkeypatch.setitem(sys.modules, "coolsd_rt.cli.build", module)

    return install


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """engines/fake in the working folder; its graphs are the fake's, and it has no neighbours of its codes."""
    monkeypatch.setattr(opening, "load_engine", lambda *_: FakeEngine())
    monkeypatch.chdir(tmp_path)
    build_fake(tmp_path)
    return Path("engines/fake")

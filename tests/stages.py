"""Engines of tests, built by the real build from stages that any test of the run has built before.

A stage's key names all that it is made from, so a stage of another test, or of another worker of pytest-xdist, is the
one that this build would make; the build itself checks its hashes. Not for tests of the build: there every stage has to
run. Knows folders of stages. Does not know what is built.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from coolsd_rt.spec import LoadedSpec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.build.run import build, plan

SHARED = "TEST_STAGES"
"""The variable with the folder of all workers' stages. `tests/conftest.py` sets it."""


def take(loaded: LoadedSpec, out: Path, *names: str) -> None:
    """Put these stages of a spec into the cache of `out`, which another test has to have built."""
    for planned in plan(loaded, out).stages:
        if planned.name in names:
            _copy(Path(os.environ[SHARED]) / planned.stage.id, out / ".cache" / planned.stage.id)
    assert {planned.name for planned in plan(loaded, out).stages if planned.cached} == set(names)


def built(loaded: LoadedSpec, out: Path) -> EngineFolder:
    """The engine of a spec, in `out`. Two workers that ask for one engine wait for each other."""
    made, shared = plan(loaded, out), Path(os.environ[SHARED])
    names = [planned.stage.id for planned in made.stages]
    with FileLock(shared / f"{made.fingerprint}.lock"):
        for name in names:
            _copy(shared / name, out / ".cache" / name)
        engine = build(plan(loaded, out)).engine
        for name in names:
            _copy(out / ".cache" / name, shared / name)
    return engine


def _copy(source: Path, target: Path) -> None:
    """A copy that is whole or absent, unless there is one: a test may change its own."""
    if not source.is_dir() or target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.environ[SHARED]) as temp:
        whole = Path(shutil.copytree(source, Path(temp) / "stage"))
        with contextlib.suppress(OSError):  # another worker was first
            whole.rename(target)

"""An engine is opened in one place, and whole: forced tokens and neighbours too, whoever asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coolsd_rt.backends import Description
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.spec import load_spec, with_overrides
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import opening
from coolsd_rt.workflows.opened import OpenedEngine
from tests.workflows.fakes import DIMS, SIDE, FakeEngine
from tests.workflows.test_prefixes import FORCED
from tools.demo import benchmark as demo

ROOT = Path(__file__).resolve().parents[2]
PARTS = re.compile(r"\b(load_engine\(|load_conditioner\(|load_forced\(|load_neighbours\(|verified\(\))")
HOMES = {
    "coolsd_rt/workflows/opened.py": "the place itself",
    "coolsd_rt/workflows/opening.py": "where the parts are read",
    "coolsd_rt/prompts/load.py": "where a conditioner is read",
    "coolsd_rt/train/prompts.py": "training has no engine",
    "coolsd_rt/store/": "checks what it has just written",
    "coolsd_rt/cli/inspect.py": "checks files and draws nothing",
}
"""Files that read a part of an engine by themselves, and why."""


def forced(engine: Path) -> EngineFolder:
    contract = {**Description(DIMS, 3, SIDE).as_dict(), "forced": list(FORCED)}
    return open_engine(engine).with_manifest(contract=contract)


def test_nobody_else_puts_an_engine_together() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match.group(1)}"
        for room in ("coolsd_rt", "tools")
        for path in (ROOT / room).rglob("*.py")
        for match in PARTS.finditer(
            re.sub(r"(?m)^\s*def .*$|\"\"\"(?s:.*?)\"\"\"", "", path.read_text(encoding="utf-8"))
        )
        if not str(path.relative_to(ROOT)).startswith(tuple(HOMES))
    }
    assert not found, "open it with workflows.opened.OpenedEngine, or say in HOMES why not"


def test_settings_have_the_engines_forced_tokens(engine: Path) -> None:
    opened = OpenedEngine(forced(engine))
    lossless = with_overrides(opened.spec, {"schedule.kind": "none"})
    for settings in (opened.settings(), opened.settings(lossless), opened.settings(plain=True)):
        assert settings.forced == FORCED
    assert opened.settings(lossless).law.omegas == (1.0, 1.0, 1.0)
    assert opened.settings(plain=True).plain


def test_the_demos_benchmark_draws_them_in_every_way(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_reference", lambda *_: FakeEngine())
    folder = forced(engine)
    ways, conditioner = demo.all_variants(
        load_spec(engine.parents[1] / "fake.yaml"), {"fp32": folder, "int8": folder}, 1
    )
    assert len(ways) == 1 + 2 * 6
    assert {way.settings.forced for way in ways} == {FORCED}
    assert conditioner.encode("red apple").unknown == ()


def test_each_part_is_read_once_and_no_sooner_than_asked_for(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int | None] = []

    def load(_: object, threads: int | None, later: object) -> FakeEngine:
        loads.append(threads)
        return FakeEngine()

    monkeypatch.setattr(opening, "load_engine", load)
    opened = OpenedEngine.at(engine, threads=3)
    assert opened.spec.draft.length == 3
    assert opened.settings().law.length == 3
    assert loads == []
    opened.load()
    assert opened.engine is opened.engine
    assert loads == [3]
    (opened.folder.folder / "surplus").touch()
    opened.load()  # nothing is looked at again
    with pytest.raises(CoolsdError, match="the additional file surplus"):
        OpenedEngine.at(engine).load()
    with pytest.raises(UserError, match="expected an engine"):
        OpenedEngine.at(engine.parent / "nothing")

"""An engine of before is refused in one line that says to build again. `before/manifest.json` is that of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import coolsd_rt
from coolsd_rt.cli.main import run
from coolsd_rt.contract import CONTRACT_VERSION
from coolsd_rt.errors import CoolsdError
from coolsd_rt.store.hashing import sha256_bytes

BEFORE = Path(__file__).parent / "before"
MANIFEST = (BEFORE / "manifest.json").read_bytes()
THEN = json.loads(MANIFEST)["contract"]["version"]


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """Its folder. Its graphs have the right hashes and are no graphs: none may be parsed before it is refused."""
    manifest = json.loads(MANIFEST)
    folder = tmp_path / "engines/tiny" / str(manifest["fingerprint"])
    folder.mkdir(parents=True)
    for name, record in manifest["files"].items():
        data = (BEFORE / name).read_bytes() if name.endswith(".json") else name.encode()
        (folder / name).write_bytes(data)
        record |= {"sha256": sha256_bytes(data), "size": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_it_is_of_before() -> None:
    assert THEN < CONTRACT_VERSION


@pytest.mark.parametrize("verb", [("generate", "-p", "red apple"), ("bench", "-p", "red apple"), ("analyze",)])
def test_a_verb_says_to_build_again(verb: tuple[str, ...], engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    name, *rest = verb
    assert run([name, str(engine), *rest]) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert f"contract: expected version {CONTRACT_VERSION}, found {THEN}; build it again: coolsd-rt build " in said


def test_python_says_it_too(engine: Path) -> None:
    with pytest.raises(CoolsdError, match=f"expected version {CONTRACT_VERSION}, .*; build it again: coolsd-rt build"):
        coolsd_rt.Pipeline.load(engine)("red apple")


def test_its_manifest_can_still_be_read(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(engine)]) == 0
    text = capsys.readouterr().out
    assert f"contract version: {THEN} -> {CONTRACT_VERSION}" in text
    assert "this version cannot run the engine; build it again: coolsd-rt build " in text
    assert run(["inspect", str(engine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runnable"] is False

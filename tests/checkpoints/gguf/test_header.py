"""GGUF headers: what the library's own reader finds; and every wrong file is one line, soon and without memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.cli.main import run
from coolsd_rt.errors import UserError

gguf = pytest.importorskip("gguf")

from gguf import GGMLQuantizationType as Kind  # noqa: E402

from coolsd_rt.checkpoints.gguf.header import read_header  # noqa: E402
from coolsd_rt.checkpoints.gguf.shard import GGUFShard  # noqa: E402
from tests.at_once import at_once  # noqa: E402
from tests.checkpoints.llamas import fields, gguf_tensors, llama, write_gguf  # noqa: E402

HEAD, ENTRY = b"GGUF", struct.Struct("<IQQ")


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, at: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)


def whole(keys: tuple[bytes, ...] = (), tensors: tuple[bytes, ...] = (), data: int = 64, version: int = 3) -> bytes:
    """A file: `data` bytes of zeros from the next multiple of 32 on."""
    made = HEAD + ENTRY.pack(version, len(tensors), len(keys)) + b"".join((*keys, *tensors))
    return made + bytes(-len(made) % 32 + data)


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "found an empty file"),
    "another file": (b"hello " * 9, "found a file that begins with b'hell'"),
    "only its magic": (HEAD, "truncated"),
    "version 1": (whole(version=1), "found version 1"),
    "version 4": (whole(version=4), "found version 4"),
    "the other byte order": (HEAD + struct.pack(">IQQ", 3, 0, 0), "a machine of the other byte order"),
    "keys without end": (HEAD + ENTRY.pack(3, 0, 2**63), f"{2**63} keys"),
    "tensors without end": (HEAD + ENTRY.pack(3, 2**40, 0), f"{2**40} tensors"),
    "more keys than bytes": (HEAD + ENTRY.pack(3, 0, 60_000), "60000 keys"),
    "a long key": (HEAD + ENTRY.pack(3, 0, 1) + struct.pack("<Q", 2**62) + bytes(64), "a key goes beyond its end"),
    "a long text": (whole((key(b"a", 8, struct.pack("<Q", 2**60)),)), "the value of 'a' goes beyond its end"),
    "a long array": (whole((key(b"a", 9, struct.pack("<IQ", 5, 2**20)),)), "the value of 'a' goes beyond its end"),
    "an endless array": (whole((key(b"a", 9, struct.pack("<IQ", 5, 2**61)),)), f"has {2**61} entries"),
    "texts without end": (whole((key(b"a", 9, struct.pack("<IQ", 8, 2**21)),)), "the value of 'a' goes beyond its end"),
    "arrays in arrays": (whole((key(b"a", 9, struct.pack("<IQ", 9, 1)),)), "an array of arrays"),
    "an unknown value": (whole((key(b"a", 13, bytes(8)),)), "of the unknown type 13"),
    "an unknown entry": (whole((key(b"a", 9, struct.pack("<IQ", 99, 1)),)), "an array of the unknown type 99"),
    "a key twice": (whole((key(b"a", 0, b"1"),) * 2), "the key 'a' twice"),
    "no UTF-8": (whole((key(b"\xff", 0, b"1"),)), "a key is not UTF-8"),
    "a tensor twice": (whole((), (tensor(b"t", (4,)),) * 2), "the tensor 't' twice"),
    "tensors over each other": (whole((), (tensor(b"t", (4,)), tensor(b"u", (4,)))), "'u' overlaps another"),
    "an unknown type": (whole((), (tensor(b"t", (4,), 77),)), "the tensor 't' of the unknown type 77"),
    "half a block": (whole((), (tensor(b"t", (31,), 8),)), "'t' of type Q8_0 and shape [31]"),
    "no numbers": (whole((), (tensor(b"t", (4, 0)),)), "shape [0, 4]"),
    "no axes": (whole((), (tensor(b"t", ()),)), "has 0 axes"),
    "many axes": (whole((), (tensor(b"t", (1,) * 5),)), "has 5 axes"),
    "a tensor beyond": (whole((), (tensor(b"t", (17,)),)), "the tensor 't' goes beyond its end"),
    "a huge tensor": (whole((), (tensor(b"t", (2**60, 2**60)),)), "the tensor 't' goes beyond its end"),
    "a tensor far off": (whole((), (tensor(b"t", (1,), 0, 2**63),)), "the tensor 't' goes beyond its end"),
    "an alignment": (whole((key(b"general.alignment", 4, struct.pack("<I", 3)),)), "general.alignment is 3"),
    "an alignment of 0": (whole((key(b"general.alignment", 4, bytes(4)),)), "general.alignment is 0"),
    "an alignment in words": (whole((key(b"general.alignment", 8, text(b"x")),)), "general.alignment is x"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, words = WRONG[case]
    (tmp_path / "odd.gguf").write_bytes(data)
    with at_once(case):
        assert run(["convert", str(tmp_path / "odd.gguf"), "--to", str(tmp_path / "x")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("converting")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "odd.gguf: expected a GGUF file" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["odd.gguf"]


def test_the_cases_are_wrong_by_what_they_change(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(whole((key(b"a", 8, text(b"x")),), (tensor(b"t", (2, 3)),)))
    header = read_header(tmp_path / "good")
    assert header.fields == {"a": "x"}
    assert (header.tensors["t"].shape, header.tensors["t"].size) == ((3, 2), 24)
    assert GGUFShard(tmp_path / "good").read("t").tolist() == [[0.0, 0.0]] * 3


def test_it_finds_what_the_library_finds(tmp_path: Path) -> None:
    values = {
        **fields(llama()),
        "a.list": ["x", "ÿ", ""],
        "a.numbers": [1, -2, 3],
        "a.flag": True,
        "general.alignment": 64,
    }
    kinds = {"token_embd.weight": Kind.Q8_0, "output.weight": Kind.F16}
    path = write_gguf(tmp_path / "a.gguf", values, gguf_tensors(llama()), kinds)
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    keys = [name for name in theirs.fields if not name.startswith("GGUF.")]
    assert list(ours.fields) == keys
    for name in keys:
        wanted, found = theirs.fields[name].contents(), ours.fields[name]
        if isinstance(found, float):
            assert np.float32(found) == np.float32(wanted), name
        else:
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == wanted, name
    assert ours.fields["llama.attention.layer_norm_rms_epsilon"] == 1e-5
    assert len(ours.tensors) == len(theirs.tensors) > 10
    for each in theirs.tensors:
        place = ours.tensors[each.name]
        assert place.shape == tuple(int(size) for size in reversed(each.shape))
        assert (place.kind, place.at, place.size) == (each.tensor_type.name, each.data_offset, each.n_bytes)


KINDS = [
    Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.TQ1_0, Kind.TQ2_0,
]  # fmt: skip
PACKED = [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS, Kind.IQ2_XXS, Kind.IQ3_S]
"""Types that the library reads and does not write: random bytes with small scales stand for what llama.cpp writes."""


@pytest.mark.parametrize("kind", [*KINDS, *PACKED], ids=lambda kind: kind.name)
def test_numbers_are_the_librarys(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read at once, and in parts of few rows."""
    rows, columns = 7, 512
    rng = np.random.default_rng(3)
    if kind in KINDS:
        data = gguf.quants.quantize(rng.standard_normal((rows, columns)).astype(np.float32), kind)
    else:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 60, (rows, columns // block * size), np.uint8)  # as float16 scales: small, finite
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("t", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    wanted = torch.from_numpy(gguf.quants.dequantize(data.view(np.uint8), kind).astype(np.float32))
    assert wanted.shape == (rows, columns)
    assert torch.isfinite(wanted).all()
    found = GGUFShard(tmp_path / "a.gguf").read("t")
    assert found.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind.name, torch.float32)
    assert torch.equal(found.float(), wanted)
    monkeypatch.setattr("coolsd_rt.checkpoints.gguf.shard._AT_ONCE", 2 * columns)
    assert torch.equal(GGUFShard(tmp_path / "a.gguf").read("t").float(), wanted)


def test_types_that_are_not_numbers_of_a_network_are_named(tmp_path: Path) -> None:
    for kind, name in ((24, "I8"), (28, "F64"), (15, "Q8_K")):
        (tmp_path / "a.gguf").write_bytes(whole((), (tensor(b"t", (256,), kind),), 2048))
        with pytest.raises(UserError, match=f"a.gguf: t: expected a type that the package gguf .*, found {name}"):
            GGUFShard(tmp_path / "a.gguf")


def test_a_part_of_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(whole((key(b"split.count", 2, struct.pack("<H", 3)),)))
    with pytest.raises(
        UserError, match=r"split.count: expected a model in one file, found 3; .*llama-gguf-split --merge"
    ):
        GGUFShard(tmp_path / "a.gguf")


@pytest.mark.parametrize("name", ["general.architecture", "split.count"])
def test_an_array_for_a_value_is_named(name: str, tmp_path: Path) -> None:
    array = struct.pack("<IQ2i", 5, 2, 1, 1)
    (tmp_path / "a.gguf").write_bytes(whole((key(name.encode(), 9, array),), (tensor(b"t", (4,)),)))
    with pytest.raises(UserError, match=rf"{name}: expected .*, found \[1 1\]"):
        convert(tmp_path / "a.gguf", tmp_path / "x")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_a_header_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes flipped, the file cut, and sizes replaced by large ones: a UserError, or a header."""
    keys = (key(b"a", 8, text(b"x" * 9)), key(b"b", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3)),
            key(b"c", 9, struct.pack("<IQ", 8, 2) + text(b"ab") + text(b"c")), key(b"d", 7, b"\1"))  # fmt: skip
    good = whole(keys, (tensor(b"t", (2, 3)), tensor(b"u", (32,), 8, 32)), 128)
    changes: tuple[Callable[[bytearray], object], ...] = (
        lambda made: made.__setitem__(data.draw(st.integers(0, len(made) - 1)), data.draw(st.integers(0, 255))),
        lambda made: made.__delitem__(slice(data.draw(st.integers(0, len(made))), None)),
        lambda made: made.__setitem__(
            slice(at := data.draw(st.integers(4, max(4, len(made) - 8))), at + 8),
            struct.pack("<Q", data.draw(st.sampled_from((0, 1, 2**16, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)))),
        ),
    )
    made = bytearray(good)
    for change in data.draw(st.lists(st.sampled_from(changes), min_size=1, max_size=3)):
        if made:
            change(made)
    path = tmp_path_factory.mktemp("odd") / "a.gguf"
    path.write_bytes(made)
    try:
        shard = GGUFShard(path)
        for name in shard.tensors:
            shard.read(name)
    except UserError as error:
        refused = str(error)
    else:
        return
    assert "\n" not in refused

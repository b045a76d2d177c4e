"""Damaged, cut and foreign checkpoints: one line and exit code 2, nothing written, nothing run, no weight changed.

The laws are about kinds: any change of any container (`CONTAINERS`), any pickle that holds more than tensors.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.torch_pickle import MAX_PICKLE, PickleShard
from coolsd_rt.cli.main import run
from coolsd_rt.errors import UserError
from tests.models.test_reference_llamagen import HEADS, checkpoint

OPTIONS = ConvertOptions(size=256, heads=HEADS)
STATE = checkpoint("c2i")
Files = Mapping[str, bytes]


def saved(data: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(data, file, **options)
    return file.getvalue()


def folder() -> Files:
    """Two shards, their index, and a config."""
    names = sorted(STATE)
    table: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for at, part in enumerate((names[:7], names[7:])):
        files[f"{at}.safetensors"] = save({name: STATE[name] for name in part})
        table |= dict.fromkeys(part, f"{at}.safetensors")
    files["model.safetensors.index.json"] = json.dumps({"weight_map": table}).encode()
    files["config.json"] = json.dumps({"num_attention_heads": HEADS, "rms_norm_eps": 1e-5}).encode()
    return files


CONTAINERS: Mapping[str, Files] = {
    "archive": {"c.pt": saved({"model": STATE, "args": Namespace(lr=1e-4)})},
    "of before torch 1.6": {"c.pt": saved({"model": STATE}, _use_new_zipfile_serialization=False)},
    "safetensors": {"c.safetensors": save(STATE)},
    "folder": folder(),
}


@contextmanager
def place(files: Files) -> Iterator[tuple[Path, Path]]:
    """A checkpoint of these files, and where to write; the folder to write in is empty afterwards but for that file."""
    root = Path(tempfile.mkdtemp())
    try:
        (root / "in").mkdir()
        (root / "out").mkdir()
        for name, data in files.items():
            (root / "in" / name).write_bytes(data)
        yield root / "in" / (next(iter(files)) if len(files) == 1 else ""), root / "out" / "ours.safetensors"
        assert {path.name for path in (root / "out").iterdir()} <= {"ours.safetensors"}
    finally:
        shutil.rmtree(root)


def outcome(files: Files) -> dict[str, Tensor] | None:
    """What was written; None if the checkpoint was refused as it should be."""
    with place(files) as (source, to):
        try:
            convert(source, to, options=OPTIONS)
        except UserError as caught:
            refused = caught
        else:
            return load_file(to)
        assert refused.exit_code == 2
        assert "\n" not in str(refused)
        assert len(str(refused)) < 700
        assert not to.exists()
        return None


SPANS = st.sampled_from((1, 2, 4, 8, 30, 300))
NUMBERS = st.sampled_from((0, 1, -1, 127, 255, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**62))


@st.composite
def changed(draw: st.DrawFn, data: bytes, first: int = 0) -> bytes:
    """Bytes with one to three changes behind `first`: a bit, a number, a span cut, doubled, moved, or the end lost."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at, size = first + draw(st.integers(0, max(0, len(made) - first - 1))), draw(SPANS)
        kind = draw(st.sampled_from(("bit", "number", "cut", "double", "move", "end")))
        if not made:
            break
        if kind == "bit":
            made[at % len(made)] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            made[at : at + 4] = struct.pack("<q", draw(NUMBERS))[:4]
        elif kind == "cut":
            del made[at : at + size]
        elif kind == "double":
            made[at:at] = made[at : at + size]
        elif kind == "move":
            span = made[at : at + size]
            del made[at : at + size]
            made[first:first] = span
        else:
            del made[at:]
    return bytes(made)


@pytest.mark.parametrize("container", CONTAINERS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_is_refused_or_leaves_a_network(container: str, data: st.DataObject) -> None:
    files = dict(CONTAINERS[container])
    name = data.draw(st.sampled_from(sorted(files)))
    # Small numbers of bytes that say what the rest is; the rest is numbers.
    head = data.draw(st.booleans()) and name.endswith("safetensors")
    files[name] = data.draw(changed(files[name][:600])) + files[name][600:] if head else data.draw(changed(files[name]))
    written = outcome(files)
    if written is not None:
        assert {name: value.shape for name, value in written.items()} == {
            name: value.shape for name, value in STATE.items() if name != "freqs_cis"
        }
        if container == "archive":  # it has checksums
            assert all(torch.equal(value, STATE[name]) for name, value in written.items())


def repacked(data: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose parts are changed, with checksums that are right again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return file.getvalue()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_the_pickle_in_an_archive(data: st.DataObject) -> None:
    """Its checksum is right, so that the unpickler has to survive it."""
    archive = CONTAINERS["archive"]["c.pt"]
    files = {"c.pt": repacked(archive, lambda name, part: data.draw(changed(part)) if "data.pkl" in name else part)}
    written = outcome(files)
    assert written is None or set(written) == set(STATE) - {"freqs_cis"}


def test_every_flipped_byte_of_a_weight_in_an_archive_is_seen() -> None:
    data = CONTAINERS["archive"]["c.pt"]
    weight = STATE["norm.weight"].numpy().tobytes()
    at = data.index(weight)
    for offset in range(0, len(weight), 17):
        made = bytearray(data)
        made[at + offset] ^= 1
        with place({"c.pt": bytes(made)}) as (source, to), pytest.raises(UserError, match=r"data/\d+ do not match"):
            convert(source, to, options=OPTIONS)


def test_bytes_behind_the_last_tensor_of_before_torch_1_6_are_seen() -> None:
    for more in (b"\0", CONTAINERS["of before torch 1.6"]["c.pt"]):
        files = {"c.pt": CONTAINERS["of before torch 1.6"]["c.pt"] + more}
        with place(files) as (source, to), pytest.raises(UserError, match=f"{len(more)} bytes behind its last tensor"):
            convert(source, to, options=OPTIONS)


def test_an_archive_without_checksums_is_read() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert outcome({"c.pt": data}) is not None


BIG = MAX_PICKLE + 1
ARCHIVES: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (
        lambda: repacked(CONTAINERS["archive"]["c.pt"], lambda _, part: part, zipfile.ZIP_DEFLATED),
        "a compressed archive",
    ),
    "a part behind its end": (lambda: CONTAINERS["archive"]["c.pt"] + b"more", "does not end"),
    "without a pickle": (lambda: b"PK\x03\x04" + bytes(30), "does not end"),
    "with another list": (
        lambda: repacked(CONTAINERS["archive"]["c.pt"], lambda _, part: part).replace(b"data.pkl", b"date.pkl"),
        "its list of parts",
    ),
    "of TorchScript": (lambda: _scripted(), "a compressed archive|a truncated, damaged or other file"),
    "with a large pickle": (
        lambda: repacked(CONTAINERS["archive"]["c.pt"], lambda n, p: bytes(BIG) if "data.pkl" in n else p),
        "larger than they can be",
    ),
}


def _scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


@pytest.mark.parametrize("case", ARCHIVES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_archive_of_another_form(case: str) -> None:
    made, word = ARCHIVES[case]
    with place({"c.pt": made()}) as (source, to), pytest.raises(UserError, match=word):
        convert(source, to, options=OPTIONS)


class Attack:
    """Pickled as a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> Mapping[str, Any]:
    """Objects whose unpickling would make the file `mark`."""
    inner = pickle.dumps(Attack(open, str(mark), "w"), protocol=2)
    return {
        "a call": Attack(os.system, f"touch {mark}"),
        "a file": Attack(open, str(mark), "w"),
        "eval": Attack(eval, f"open({str(mark)!r}, 'w')"),
        "a process": Attack(subprocess.Popen, ["touch", str(mark)]),
        "a pickle in a pickle": Attack(pickle.loads, inner),
        "torch's own loader": Attack(torch.storage._load_from_bytes, inner),
        "a folder": Attack(os.mkdir, str(mark)),
    }


@pytest.mark.parametrize("name", attacks(Path("x")))
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_pickle_runs(
    name: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the environment asks torch to unpickle everything."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark, source, to = tmp_path / "mark", tmp_path / "c.pt", tmp_path / "ours.safetensors"
    for at, data in enumerate(({"model": STATE, "x": attacks(mark)[name]}, STATE | {"x": attacks(mark)[name]})):
        source.write_bytes(saved(data, _use_new_zipfile_serialization=not legacy))
        assert run(["convert", str(source), "--to", str(to), "--size", "256", "--heads", "3"]) == 2, at
        assert "a pickle that holds more than tensors" in capsys.readouterr().err
        assert not mark.exists()
        assert not to.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs_in_a_bare_pickle(protocol: int, tmp_path: Path) -> None:
    """torch.save writes protocol 2; others have other ways to name a function."""
    mark, source = tmp_path / "mark", tmp_path / "c.pt"
    source.write_bytes(pickle.dumps(Attack(open, str(mark), "w"), protocol=protocol))
    with pytest.raises(UserError):
        convert(source, tmp_path / "ours.safetensors", options=OPTIONS)
    archive = CONTAINERS["archive"]["c.pt"]
    source.write_bytes(repacked(archive, lambda name, part: source.read_bytes() if "data.pkl" in name else part))
    with pytest.raises(UserError):
        convert(source, tmp_path / "ours.safetensors", options=OPTIONS)
    assert not mark.exists()


ODD: Mapping[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.eye(48).to_sparse(),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(48), 0.1, 0, torch.qint8),
    "on no device": lambda: torch.empty(48, device="meta"),
    "expanded": lambda: torch.zeros(1).expand(48),
    "double": lambda: torch.zeros(48, dtype=torch.float64),
    "complex": lambda: torch.zeros(48, dtype=torch.complex64),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_no_plain_one_is_named(kind: str) -> None:
    files = {"c.pt": saved(STATE | {"norm.weight": ODD[kind]()})}
    with place(files) as (source, to), pytest.raises(UserError, match=r"norm\.weight: expected one of F32"):
        convert(source, to, options=OPTIONS)
    beside = {"c.pt": saved(STATE | {"freqs_cis": ODD[kind]()})}  # it is not used
    assert outcome(beside) is not None


def test_numbers_in_names_make_no_network() -> None:
    for number in (2, 10**9, 10**30):
        state = STATE | {f"layers.{number + 1}.attention.wo.weight": torch.zeros(48, 48)}
        with place({"c.pt": saved(state)}) as (source, to), pytest.raises(UserError, match=r"a tensor with 2 in its"):
            convert(source, to, options=OPTIONS)


CRAFTED = """
import resource, sys
from pathlib import Path
import torch
from coolsd_rt.errors import CoolsdError
from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
files = [Path(name) for name in sys.argv[1:]]
to = files[0].with_name("ours")
convert(files[0], to, options=ConvertOptions(256, 3))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files[1:]:
    try:
        convert(file, to, options=ConvertOptions(256, 3))
        print("written", file)
    except CoolsdError as error:
        print(error.exit_code, file.name)
print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_sizes_that_a_small_file_claims_take_no_memory(tmp_path: Path) -> None:
    """Texts of 4 GB, storages of 16 GB, tensors of terabytes: refused in less than 100 MB."""
    huge = torch.zeros(1)
    cases = {
        "whole": saved(STATE),
        "expanded": saved(STATE | {"tok_embeddings.weight": huge.expand(10**7, 48)}),
        "overflowing": saved(STATE | {"tok_embeddings.weight": huge.as_strided((2**31, 2**31), (0, 0))}),
        "text": b"\x80\x02" + b"X" + struct.pack("<I", 2**32 - 1) + b"a" * 100,
    }
    old = saved({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)
    cases["storage"] = old.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f", 1)
    assert cases["storage"] != old
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in cases]
    done = subprocess.run([sys.executable, "-c", CRAFTED, *paths], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[:-1] == [f"2 {name}" for name in list(cases)[1:]], done.stderr[-2000:]
    assert int(lines[-1].split()[1]) < 100_000


def test_a_shard_is_opened_again_after_much_was_read(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(CONTAINERS["archive"]["c.pt"])
    shard = PickleShard(tmp_path / "c.pt")
    shard._read = 1 << 40
    assert torch.equal(shard.read("norm.weight"), STATE["norm.weight"])
    assert shard._read < 1 << 20

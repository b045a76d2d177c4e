"""An engine's own files with one thing wrong, hashes and fingerprint made to agree: an error of ours, or the same law.

Who changes a manifest can compute its keys again, so what is tested here is not the fingerprint but the reading.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coolsd_rt.backends import Description
from coolsd_rt.backends.description import NEIGHBOURS_FILE
from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import JsonError, parse_json
from coolsd_rt.limits import LAYERS, TOKENS
from coolsd_rt.prompts import VOCABULARY_FILE
from coolsd_rt.store import EngineFolder, engine_fingerprint, open_engine, stage_key, staleness
from coolsd_rt.store.hashing import sha256_bytes
from coolsd_rt.store.manifest import MANIFEST
from coolsd_rt.workflows import opening
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from tests.mutations import Place, changed, dump, fuzz, mutated, mutated_text, survives
from tests.workflows.conftest import build_fake
from tests.workflows.fakes import DIMS, VOCABULARY, FakeEngine

K = 5
WORDS = {"prefix": VOCABULARY.prefix, "words": list(VOCABULARY.words)}


@dataclass(frozen=True)
class Document:
    """JSON data that a failing test does not print."""

    data: dict[str, Any] = field(repr=False)


def neighbours() -> NDArray[np.int32]:
    codes = np.arange(DIMS.vocab, dtype=np.int32)
    table: NDArray[np.int32] = ((codes[:, None] + np.arange(1, K + 1)) % DIMS.vocab).astype(np.int32)
    return table


def npy(table: NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, table, allow_pickle=False)
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake's engine with a table of neighbours, made by a stage `image`. Tests write over its files."""
    return build_fake(tmp_path_factory.mktemp("mutated"), neighbours=npy(neighbours()), k=K).folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Document:
    return Document(json.loads((folder / MANIFEST).read_text()))


def hashed(data: Any) -> Any:
    """A manifest with the keys and the fingerprint that belong to what it says, as far as it has any."""
    try:
        stages = {name: {**s, "key": stage_key(name, s["inputs"])} for name, s in data["stages"].items()}
        fingerprint = engine_fingerprint({name: s["key"] for name, s in stages.items()}, data["build_view"])
        return {**data, "stages": stages, "fingerprint": fingerprint}
    except (KeyError, TypeError, AttributeError, ValueError):  # nothing that could be hashed
        return data


def opened(folder: Path) -> dict[str, Any]:
    """All that an engine's files bring into the law."""
    engine = open_engine(folder)
    verified = engine.verified()
    conditioner, near = opening.load_conditioner(verified), opening.load_neighbours(verified)
    staleness(engine.manifest, files={}, build_view={}, run_view={}, tools={}, code=str, contract_version=1)
    return {
        "manifest": json.loads(engine.manifest.text()),
        "spec": opening.spec_of(engine),
        "description": opening.description_of(engine),
        "forced": opening.description_of(engine).forced,
        "conditioner": conditioner,
        "ids": [conditioner.encode(word).ids for word in ("red apple", "star")],
        "near": None if near is None else near.tolist(),
    }


def table_of(folder: Path) -> NDArray[np.int64]:
    """The neighbours alone, as a request for a rule that reads them opens them."""
    near = opening.load_neighbours(open_engine(folder).verified())
    assert near is not None
    return near


def tried(folder: Path, text: bytes) -> dict[str, Any] | None:
    """What is opened of a folder with this manifest; None if it is refused."""
    (folder / MANIFEST).write_bytes(text)
    found: list[dict[str, Any]] = []
    refused = survives(lambda: found.append(opened(folder)))
    if refused is not None:
        assert refused.exit_code == 1, f"an engine's file is no mistake of who runs it: {refused}"
        return None
    return found[0]


@fuzz(400)
@given(data=st.data())
def test_a_manifest_with_one_change_is_refused_or_read_as_it_stands(
    folder: Path, manifest: Document, data: st.DataObject
) -> None:
    told = hashed(data.draw(mutated(manifest.data)).data)
    if (found := tried(folder, dump(told))) is not None:
        assert found["manifest"] == {"parity": None, "spec_file": "", "schema_version": 1, **told}


@pytest.mark.parametrize("part", ["spec", "build_view", "stages", "files"])
@fuzz(100)
@given(data=st.data())
def test_each_part_of_a_manifest(folder: Path, manifest: Document, part: str, data: st.DataObject) -> None:
    told = hashed(data.draw(mutated(manifest.data, (part,))).data)
    tried(folder, dump(told))


@fuzz(2000)
@given(data=st.data())
def test_a_contract_is_refused_at_any_change(manifest: Document, data: st.DataObject) -> None:
    text, found = data.draw(mutated(manifest.data["contract"])).text, []
    try:
        contract = parse_json(text)
    except JsonError:
        return
    if survives(lambda: found.append(Description.from_dict(contract))) is None:
        assert found[0] == Description.from_dict(manifest.data["contract"])


@fuzz(100)
@given(data=st.data())
def test_a_manifests_text_with_one_change(folder: Path, manifest: Document, data: st.DataObject) -> None:
    tried(folder, data.draw(mutated_text(json.dumps(manifest.data))))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("contract.dims", [], "contract.dims: expected a mapping, found []"),
        ("contract.dims.layers", 10**7, f"contract.dims.layers: expected at most {LAYERS.high}, found 10000000"),
        ("contract.dims.tokens", True, "contract.dims.tokens: expected a whole number, found true"),
        ("contract.dims.tokens", 10**30, f"contract.dims.tokens: expected at most {TOKENS.high}, found {10**30}"),
        ("contract.dims.vocab", 1 << 20, "contract.graphs.target.outputs[0].shape[2]: expected 1048576, as the sizes"),
        ("contract.side", 64.0, "contract.side: expected a whole number, found 64.0"),
        ("contract.draft_length", 1025, "contract.draft_length: expected at most 1024, found 1025"),
        ("contract.dtype", "float16", 'contract.graphs.condition.outputs[0].dtype: expected "float16", as the sizes'),
        ("contract.propose", False, "contract.graphs.propose: expected no such key"),
        ("contract.forced", [-1] * 16, "contract.forced: expected one id at each row's end"),
        ("contract.graphs.image.file", "x.onnx", 'contract.graphs.image.file: expected "image.onnx", as the sizes'),
        ("files.vocab.json.size", 10**30, "files.vocab.json.size: expected at most 9007199254740992"),
        ("files.vocab.json.size", 7, "vocab.json was changed: expected 7 bytes, found "),
        ("build_view.engine.precision", "fp16", 'build_view.engine.precision: expected "fp32", as in its spec'),
        ("spec.draft.length", 2, "build_view.draft.length: expected 2, as in its spec, found 3"),
        ("tools", {"torch": 2}, "tools.torch: expected text, found 2"),
        ("parity", [], "parity: expected a mapping, found []"),
        ("created", "x\x1b[2J", "created: expected a time in UTC"),
        ("spec_file", "/etc/passwd", "spec_file: expected a relative path"),
        ("stages.image.inputs.files", [], "stages.image.inputs.files: expected a mapping, found []"),
        ("stages.image.inputs.files.image.weights", "0" * 64, "stages.image.inputs.files.image.weights: expected"),
        ("stages.image.inputs.spec.forced", True, "contract.forced: expected true, as at build time, found false"),
        ("stages.image.inputs.spec.side", 16, "contract.side: expected 16, as at build time, found 8"),
    ],
)
def test_what_is_refused_is_named_by_its_place(
    folder: Path, manifest: Document, place: str, value: Any, message: str
) -> None:
    *above, last = path_of(manifest.data, place)
    told = hashed(changed(manifest.data, tuple(above), lambda parent: {**parent, last: value}))
    (folder / MANIFEST).write_bytes(dump(told))
    error = survives(lambda: opened(folder))
    assert error is not None
    assert message in str(error)
    assert "; build it again: coolsd-rt build " in str(error)


def path_of(data: Any, place: str) -> Place:
    """files.vocab.json.size -> ("files", "vocab.json", "size"): keys may have dots."""
    if not place:
        return ()
    for key in sorted(data, key=len, reverse=True):
        if place == key or place.startswith(f"{key}."):
            return (key, *path_of(data[key], place[len(key) + 1 :]))
    return (place,)


def with_file(folder: Path, manifest: Document, name: str, content: bytes, source: str | None = None) -> None:
    """Write a file of an engine, with its hash and size in the manifest, and the stage's key made to agree.

    source: the spec's key of the file that it is a copy of.
    """
    record = {**manifest.data["files"][name], "sha256": sha256_bytes(content), "size": len(content)}
    told = changed(manifest.data, ("files", name), lambda _: record)
    for stage in manifest.data["stages"] if source else ():
        if source in manifest.data["stages"][stage]["inputs"]["files"]:
            told = changed(told, ("stages", stage, "inputs", "files", source or ""), lambda _: record["sha256"])
    (folder / name).unlink()  # it is a link to the stage's file
    (folder / name).write_bytes(content)
    (folder / MANIFEST).write_bytes(dump(hashed(told)))


@pytest.fixture
def whole(folder: Path) -> Iterator[Path]:
    """The folder, whose files are put back afterwards."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder
    for path, content in before.items():
        path.write_bytes(content)


@fuzz(200)
@given(data=st.data())
def test_a_vocabulary_with_one_change(whole: Path, manifest: Document, data: st.DataObject) -> None:
    whole_text = dump(WORDS)
    text = data.draw(mutated_text(whole_text) if data.draw(st.booleans()) else mutated(WORDS).map(lambda m: m.text))
    with_file(whole, manifest, VOCABULARY_FILE, text, "condition.vocab")
    found: list[dict[str, Any]] = []
    refused = survives(lambda: found.append(opened(whole)))
    if refused is not None:
        assert refused.exit_code == 1
    else:
        assert found[0]["conditioner"].prefix == DIMS.prefix
        assert len(set(found[0]["conditioner"].words)) == len(json.loads(text)["words"])


def test_a_vocabulary_of_another_build_is_refused(whole: Path, manifest: Document) -> None:
    """Even where it has as many words: others would be drawn, without a word."""
    words = [*VOCABULARY.words[:3], *reversed(VOCABULARY.words[3:])]
    with_file(whole, manifest, VOCABULARY_FILE, dump({"prefix": DIMS.prefix, "words": words}))
    with pytest.raises(
        CoolsdError, match=r"vocab.json: expected SHA-256 .*, the file that its graphs were built with, found"
    ):
        opened(whole)


@pytest.mark.parametrize("rows", [5, 7, "8", None])
def test_as_many_words_as_the_graph_has_rows(whole: Path, manifest: Document, rows: Any) -> None:
    told = changed(manifest.data, ("stages", "fake", "facts"), lambda _: {"ids": rows})
    (whole / MANIFEST).write_bytes(dump(told))
    with pytest.raises(
        CoolsdError, match=rf"expected {json.dumps(rows)} of them, the rows .*, found {len(VOCABULARY.words)}"
    ):
        opened(whole)


@functools.cache
def tables() -> st.SearchStrategy[tuple[str, NDArray[Any]]]:
    """Tables with one thing wrong."""
    good = neighbours()
    row, column = st.integers(0, len(good) - 1), st.integers(0, K - 1)

    def put(at: int, n: int, value: int) -> tuple[str, NDArray[Any]]:
        table = good.copy()
        table[at, n] = value
        return f"{value} at {at}, {n}", table

    others = [
        good.astype(t) for t in ("int64", "int16", "uint32", "float32", "float64", "bool", ">i4", "complex64", "S4")
    ]
    shapes = [good[:-1], good[:, : K - 1], good.ravel(), good[None], good[:0], good[:, :0], np.vstack([good, good])]
    wide = np.hstack([good] * 5)[:, : DIMS.vocab]
    values = st.sampled_from([-1, -(2**31), DIMS.vocab, 2**31 - 1])
    return st.one_of(
        st.builds(put, row, column, values),
        row.map(lambda at: put(at, 0, at)),  # itself
        row.map(lambda at: put(at, 0, int(good[at, 1]))),  # one twice
        st.sampled_from([(f"{t.dtype} {t.shape}", t) for t in (*others, *shapes, wide)]),
    )


@fuzz(200)
@given(data=st.data())
def test_neighbours_with_one_thing_wrong_are_refused(whole: Path, manifest: Document, data: st.DataObject) -> None:
    what, table = data.draw(tables())
    with_file(whole, manifest, NEIGHBOURS_FILE, npy(table))
    refused = survives(lambda: table_of(whole))
    assert refused is not None, what
    assert NEIGHBOURS_FILE in str(refused)


@fuzz(250)
@given(data=st.data())
def test_bytes_of_neighbours_with_one_change(whole: Path, manifest: Document, data: st.DataObject) -> None:
    raw = npy(neighbours())
    at = data.draw(st.integers(0, len(raw) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "brackets", "size", "objects", "more"]))
    text = {
        "cut": raw[:at],
        "flip": raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :],
        "brackets": raw[:10] + b"(" * at + raw[10 + at :],
        "size": raw.replace(b"(24, 5)", b"(2400000000, 5)" if at % 2 else b"(-24, -5)"),
        "objects": raw.replace(b"<i4", b"|O" if at % 2 else b"O8"),
        "more": raw + raw[:at],
    }[kind]
    with_file(whole, manifest, NEIGHBOURS_FILE, text)
    found: list[NDArray[np.int64]] = []
    if survives(lambda: found.append(table_of(whole))) is None:
        assert found[0].shape == (DIMS.vocab, K)
        assert ((found[0] >= 0) & (found[0] < DIMS.vocab)).all()


def test_more_neighbours_than_the_spec_says_are_taken(whole: Path, manifest: Document) -> None:
    codes = np.arange(DIMS.vocab, dtype=np.int32)
    table = (codes[:, None] + np.arange(1, K + 2, dtype=np.int32)) % DIMS.vocab
    with_file(whole, manifest, NEIGHBOURS_FILE, npy(table))
    assert table_of(whole).tolist() == table.tolist()


def test_neighbours_of_another_stage_are_refused(whole: Path, manifest: Document) -> None:
    told = changed(manifest.data, ("files", NEIGHBOURS_FILE, "role"), lambda _: "fake")
    (whole / MANIFEST).write_bytes(dump(told))
    with pytest.raises(CoolsdError, match=r"neighbours.npy: its stage: expected image or codes, found fake"):
        table_of(whole)


@fuzz(40)
@given(data=st.data())
def test_generate_with_a_mutated_manifest(
    whole: Path, manifest: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """The whole way, on the law that reads the table."""
    monkeypatch.setattr(opening, "load_engine", lambda *_: FakeEngine())
    part = data.draw(st.sampled_from(["spec", "contract", "stages", "files"]))
    told = hashed(data.draw(mutated(manifest.data, (part,))).data)
    (whole / MANIFEST).write_bytes(dump(told))
    law = {"acceptance.rule": "lantern", "acceptance.neighbours": K}
    survives(lambda: generate(whole, GenerateConfig(["red apple"], tmp_path / "out", overrides=law)))


@fuzz(25)
@given(data=st.data())
def test_generate_with_a_mutated_manifest_of_a_real_engine(
    tiny_engine: EngineFolder, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("real") / "copy"
    shutil.copytree(tiny_engine.folder, folder)
    document = json.loads((folder / MANIFEST).read_text())
    told = hashed(data.draw(mutated(document, (data.draw(st.sampled_from(["spec", "contract", "files"])),))).data)
    (folder / MANIFEST).write_bytes(dump(told))
    survives(lambda: generate(folder, GenerateConfig(["red apple"], folder.parent / "out", threads=1)))

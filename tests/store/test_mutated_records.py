"""A stage's record and its files with one thing wrong: the stage counts as absent, and is made again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.store import CachedStage, Store
from coolsd_rt.store.arrays import ArrayError, parse_npy
from coolsd_rt.store.cache import STAGE
from tests.mutations import dump, fuzz, mutated, mutated_text, survives
from tests.store.conftest import left_over, toy_stage, toy_write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, CachedStage]:
    store, stage = Store(tmp_path_factory.mktemp("records")), toy_stage("target")
    return store, store.stage(stage, toy_write(stage))


@pytest.fixture(scope="module")
def whole(made: tuple[Store, CachedStage]) -> dict[str, object]:
    document: dict[str, object] = json.loads((made[1].folder / STAGE).read_text())
    return document


@fuzz(600)
@given(data=st.data())
def test_a_record_with_one_change_is_absent_or_means_the_same(
    made: tuple[Store, CachedStage], whole: dict[str, object], data: st.DataObject
) -> None:
    store, stage = made
    changed = data.draw(st.booleans())
    text = data.draw(mutated(whole)).text if changed else data.draw(mutated_text(dump(whole)))
    (stage.folder / STAGE).write_bytes(text)
    found: list[CachedStage | None] = []
    assert survives(lambda: found.append(store.cached(toy_stage("target")))) is None
    if found[0] is not None:
        assert found[0].record.files == stage.record.files
        assert found[0].record.entry.inputs == stage.record.entry.inputs


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("name", [STAGE, "target.onnx"])
@pytest.mark.parametrize("harm", [_fifo, _sparse, Path.unlink])
def test_a_special_or_huge_file_of_a_stage_is_not_read(tmp_path: Path, name: str, harm: object) -> None:
    store, stage = Store(tmp_path), toy_stage("target")
    folder = store.stage(stage, toy_write(stage)).folder
    harm(folder / name)  # type: ignore[operator]
    found: list[CachedStage | None] = []
    assert survives(lambda: found.append(store.cached(stage)), cpu=5, wall=20) is None
    assert found == [None]
    assert store.stage(stage, toy_write(stage)).fresh
    assert store.cached(stage) is not None
    assert left_over(tmp_path) == []


TYPES = ["'<i4'", "'|O'", "'<U0'", "'<V0'", "[('a', '<i4')]", "'<i4, <i4'", "('<i4', (2,))", "7", "'?'"]
SHAPES = ["(2, 3)", "(2,)", "()", "(-2, -3)", "(True, 6)", "(0, 10**9)", "[2, 3]", "(2.0, 3)", "(9999999999, 9)"]
HEADERS = st.one_of(
    st.text("{}()[]'\",:0123456789<>|ibfOUV descr", max_size=900).map(str.encode),
    st.integers(1, 900).map(lambda n: b"(" * n),
    st.integers(1, 400).map(lambda n: b"[" * n + b"]" * n),
    st.builds(
        lambda descr, order, shape: f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}".encode(),
        st.sampled_from(TYPES),
        st.sampled_from(["True", "False", "0", "None"]),
        st.sampled_from(SHAPES),
    ),
)


@fuzz(1000)
@given(header=HEADERS, version=st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\xff\xff"]), body=st.binary())
def test_an_array_is_what_its_bytes_hold_or_an_error(header: bytes, version: bytes, body: bytes) -> None:
    width = 2 if version == b"\x01\x00" else 4
    data = b"\x93NUMPY" + version + len(header).to_bytes(width, "little") + header + body

    def read() -> None:
        try:
            table = parse_npy(data)
        except ArrayError:
            return
        assert not table.dtype.hasobject
        assert table.nbytes == len(body)

    assert survives(read) is None

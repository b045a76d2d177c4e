"""Results that are read back with one thing wrong: an error of ours, or what the file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.metrics.metric import Figure
from coolsd_rt.metrics.references import INDEX, read_folder
from coolsd_rt.store.results import Arrays, Batches, claim
from coolsd_rt.sweep.results import PointResult, Speed, read_point
from coolsd_rt.workflows.png import write_png
from tests.mutations import MIB, dump, fuzz, mutated, mutated_text, survives

FIGURE = Figure(value=3.5, low=3.0, high=None, interval="over images")
POINT = PointResult(
    name="a",
    series="a",
    axes={"schedule.delta": 1.1},
    plain=False,
    lossless=False,
    omegas=[1.1, 1.0],
    rule="ratio",
    resampler="optimal",
    images=4,
    rounds=90,
    mean_acceptance_length=FIGURE,
    acceptance_by_position=[0.9, None],
    degenerate_residuals=0,
    quality={"clip": FIGURE},
    speed=Speed(tokens_per_second=1.0, seconds=2.0, loop="host"),
)
DOCUMENT = json.loads(POINT.text())
HEAD = {"engine": "0" * 16, "prompts": ["red apple"], "seed": 7, "set": {"schedule.delta": 1.1}}
REFERENCES = {"version": 1, "shift": 1, "images": [{"file": "a.png", "caption": "Red apple!", "flip": True}]}
ARRAYS: Arrays = {"codes": np.arange(12, dtype=np.int64).reshape(3, 4), "rounds": np.array([1.5, 2.0])}


@fuzz(800)
@given(text=st.one_of(mutated(DOCUMENT).map(lambda mutant: mutant.text), mutated_text(dump(DOCUMENT))))
def test_a_point(tmp_path: Path, text: bytes) -> None:
    path, found = tmp_path / "000-a.json", []
    path.write_bytes(text)
    if survives(lambda: found.append(read_point(path))) is None:
        told, said = (json.loads(t, parse_int=float) for t in (found[0].text(), text.decode("utf-8-sig")))
        said["speed"].setdefault("note", told["speed"]["note"])  # the one key with a default
        assert told == said


@fuzz(400)
@given(text=st.one_of(mutated(HEAD).map(lambda mutant: mutant.text), mutated_text(dump(HEAD))))
def test_the_head_of_a_folder(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "recording.json").write_bytes(text)
    if survives(lambda: claim(tmp_path, "recording.json", HEAD, "a recording")) is None:
        assert json.loads(text.decode("utf-8-sig")) == HEAD


@fuzz(400)
@given(text=st.one_of(mutated(REFERENCES).map(lambda mutant: mutant.text), mutated_text(dump(REFERENCES))))
def test_an_index_of_references(tmp_path: Path, text: bytes) -> None:
    write_png(tmp_path, "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / INDEX).write_bytes(text)
    refused = survives(lambda: read_folder(tmp_path))
    assert refused is None or refused.exit_code == 2


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Batches, Path, bytes]:
    kept = Batches(tmp_path_factory.mktemp("batches"), tuple(ARRAYS), "a batch of a recording")
    kept.get(0, lambda: ARRAYS)
    path = next(kept.folder.glob("*.npz")) if kept.folder else Path()
    return kept, path, path.read_bytes()


@fuzz(800)
@given(data=st.data())
def test_a_batch_of_arrays(batch: tuple[Batches, Path, bytes], data: st.DataObject) -> None:
    """No array is larger than what the file can hold, however its header was changed."""
    kept, path, whole = batch
    at, mask = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    flipped = whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]
    path.write_bytes(data.draw(st.sampled_from([flipped, flipped, whole[:at], whole[at:], whole * 2])))
    found: list[Arrays] = []
    if survives(lambda: found.append(kept.get(0, dict)), most=8 * MIB) is None:
        assert all(np.array_equal(found[0][name], array) for name, array in ARRAYS.items())

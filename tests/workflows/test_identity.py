"""Is this file that image? Equal for equal images, whatever else the file says; never for a file of anything else."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from coolsd_rt.files import JsonError, parse_json
from coolsd_rt.workflows.generate.identity import Identity, Standing, sha256_pixels, standing
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.png import CHUNK, read_pixels, read_provenance, write_png
from tests.mutations import fuzz, mutated

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
SAID: dict[str, Any] = {
    "version": "0.1.0",
    "engine": {"name": "fake", "fingerprint": "0123456789abcdef"},
    "prompt": "red apple",
    "seed": 3,
    "law": {"plain": False, "draft": "eagle", "draft_length": 2, "omegas": [1.5, 1.25], "rule": "ratio",
            "resampler": "optimal"},
    "spec": {"sampling": {"cfg_scale": 2.0, "top_k": 0}, "acceptance": {"rule": "ratio"},
             "pacing": {"confidence": 0.0}, "engine": {"max_batch": 2}, "schedule": {"kind": "exponential"}},
    "pixels": sha256_pixels(PIXELS),
}  # fmt: skip


def changed(*path: str, to: Any) -> dict[str, Any]:
    data = copy.deepcopy(SAID)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return data


def identity(said: dict[str, Any] = SAID) -> Identity:
    found = Identity.of(said)
    assert found is not None
    return found


DECIDE = [
    changed("engine", "fingerprint", to="fedcba9876543210"),
    changed("prompt", to="red star"),
    changed("seed", to=4),
    changed("condition", to={"features": "00"}),
    changed("law", "plain", to=True),
    changed("law", "draft", to="jacobi"),
    changed("law", "draft_length", to=1),
    changed("law", "omegas", to=[1.5, 1.0]),
    changed("law", "resampler", to="waterfill"),
    changed("spec", "acceptance", to={"rule": "ratio", "rates": [1.0]}),
    changed("spec", "sampling", "cfg_scale", to=2.5),
    changed("spec", "pacing", "confidence", to=0.9),
]
DO_NOT = [
    changed("version", to="9.9"),
    changed("engine", "name", to="another"),
    changed("spec", "engine", "max_batch", to=4),
    changed("spec", "schedule", to={"kind": "custom"}),  # the omegas decide, not how they were asked for
    changed("law", "omegas", to=[1.5, 1.25 + 1e-15]),
    changed("pixels", to=None),
]


@pytest.mark.parametrize("said", DECIDE, ids=lambda said: json.dumps(said)[:0])
def test_all_that_decides_an_image_is_in_its_identity(said: dict[str, Any]) -> None:
    assert identity(said) != identity()
    assert identity(said).digest != identity().digest


@pytest.mark.parametrize("said", DO_NOT, ids=lambda said: json.dumps(said)[:0])
def test_nothing_else_is(said: dict[str, Any]) -> None:
    assert identity(said) == identity()
    assert identity(said).digest == identity().digest


def test_of_plain_decoding_the_draft_decides_nothing() -> None:
    plain = changed("law", "plain", to=True)
    other = copy.deepcopy(plain)
    other["law"]["omegas"], other["spec"]["pacing"] = [], {"confidence": 0.5}
    assert identity(plain) == identity(other)


@pytest.mark.parametrize("key", ["engine", "prompt", "seed", "law", "spec"])
def test_what_is_no_provenance_has_no_identity(key: str) -> None:
    values: list[Any] = [None, [], "x", 3, {}]
    for value in values:
        if key not in ("prompt", "seed"):
            assert Identity.of(changed(key, to=value)) is None
    assert Identity.of({k: v for k, v in SAID.items() if k != key}) is None


def written(folder: Path, said: dict[str, Any] = SAID) -> Path:
    return write_png(folder, "a.png", PIXELS, said)


def test_the_image_itself_and_nothing(tmp_path: Path) -> None:
    assert standing(tmp_path / "a.png", identity()) is Standing.ABSENT
    assert standing(written(tmp_path), identity()) is Standing.SAME
    assert standing(written(tmp_path, changed("version", to="9.9")), identity()) is Standing.SAME


def _stranger(path: Path) -> None:
    Image.fromarray(PIXELS).save(path)


def _edited(path: Path) -> None:
    """In an editor that keeps text chunks."""
    info = PngImagePlugin.PngInfo()
    info.add_text(CHUNK, json.dumps(SAID))
    Image.fromarray(255 - PIXELS).save(path, pnginfo=info)


def _deep(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(CHUNK, "[" * 100_000)
    Image.fromarray(PIXELS).save(path, pnginfo=info)


OTHERS: list[Callable[[Path], object]] = [
    _stranger,
    _edited,
    _deep,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("notes"),
    lambda path: path.mkdir(),
    os.mkfifo,
    lambda path: path.symlink_to("nowhere"),
    lambda path: Image.fromarray(PIXELS).save(path, "JPEG"),
]


@pytest.mark.parametrize("make", OTHERS)
def test_anything_else_is_another_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.png")
    assert standing(tmp_path / "a.png", identity()) is Standing.OTHER


def test_cut_anywhere_it_is_damaged_or_another_and_never_the_image(tmp_path: Path) -> None:
    data = written(tmp_path).read_bytes()
    words, pixels = data.index(CHUNK.encode()), data.index(b"IDAT") + 4
    for end in range(len(data)):
        (tmp_path / "a.png").write_bytes(data[:end])
        found = standing(tmp_path / "a.png", identity())
        assert found is not Standing.SAME
        assert found is not Standing.DAMAGED or end > words
        assert found is Standing.DAMAGED or end < pixels


@settings(max_examples=300)
@given(st.data())
def test_no_change_of_a_byte_is_taken_for_the_image(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A file that still counts as the image has its pixels and its words, to the byte."""
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    whole = written(folder).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(max_size=8))
    gone = data.draw(st.integers(0, 8))
    path = folder / "a.png"
    path.write_bytes(whole[:at] + new + whole[at + gone :])
    if standing(path, identity()) is Standing.SAME:
        assert np.array_equal(read_pixels(path), PIXELS)
        assert identity(read_provenance(path) or {}) == identity()


def test_what_generate_writes_is_the_image_that_it_says(engine: Path, tmp_path: Path) -> None:
    """One identity an image of a request: the function the command itself asks."""
    report = generate(engine, GenerateConfig(["red apple", "red star"], tmp_path, variants=2))
    said = [read_provenance(one.path) or {} for one in report.drawn]
    table = [[standing(one.path, identity(s)) for one in report.drawn] for s in said]
    for k, row in enumerate(table):
        assert [s is Standing.SAME for s in row] == [i == k for i in range(4)]


@fuzz(1000)
@given(data=st.data())
def test_a_provenance_with_one_change_is_an_identity_or_none(data: st.DataObject) -> None:
    try:
        said = parse_json(data.draw(mutated(SAID)).text)
    except JsonError:
        return
    if isinstance(said, dict):
        Identity.of(said)


@pytest.mark.parametrize("omegas", [[10**400], ["a"], 5, [[1]], {"1": 1}])
def test_omegas_that_are_no_numbers_are_no_image_of_ours(omegas: object) -> None:
    assert Identity.of(changed("law", "omegas", to=omegas)) is None

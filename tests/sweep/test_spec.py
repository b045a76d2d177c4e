"""A sweep's file: its points, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from coolsd_rt.spec import Spec, SpecError, load_spec
from coolsd_rt.sweep.spec import MOST_POINTS, load_sweep, points_of, reference_spec

ROOT = Path(__file__).resolve().parents[2]
EMOJI = ROOT / "pipelines" / "emoji.yaml"


def base() -> Spec:
    return load_spec(EMOJI).spec


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_grid_is_a_product_over_the_base(tmp_path: Path) -> None:
    text = """\
version: 1
images: 4
set: {pacing.confidence: 0, sampling.top_k: 3}
points:
  a: {set: {schedule.kind: uniform}, grid: {schedule.delta: [1.5, 2], sampling.cfg_scale: [1, 2.5]}}
  LANTERN++ (theirs): {set: {acceptance.rule: lantern_pp, acceptance.factor: 2, acceptance.neighbours: 8}}
  plain: {plain: true, grid: {sampling.temperature: [0.5, 1]}}
"""
    loaded = load_sweep(write(tmp_path, text))
    points = points_of(loaded, base())
    assert [p.name for p in points] == [
        "a, delta 1.5, cfg_scale 1",
        "a, delta 1.5, cfg_scale 2.5",
        "a, delta 2, cfg_scale 1",
        "a, delta 2, cfg_scale 2.5",
        "LANTERN++ (theirs)",
        "plain, temperature 0.5",
        "plain, temperature 1",
    ]
    assert points[1].spec.sampling.cfg_scale == 2.5
    assert points[4].spec.schedule.kind == "none"  # a rule with a relaxation of its own
    assert {p.spec.pacing.confidence for p in points if not p.plain} == {0.0}
    assert {p.spec.sampling.top_k for p in points} == {3}
    assert [p.plain for p in points] == [False] * 5 + [True] * 2
    assert points[3].file_stem == "003-a-delta-2-cfg-scale-2-5"
    assert len({p.file_stem for p in points}) == len(points)
    assert reference_spec(loaded, base()).sampling.top_k == 3
    assert reference_spec(loaded, base()).pacing == base().pacing


def test_every_mistake_of_the_file_has_its_line(tmp_path: Path) -> None:
    text = """\
version: true
imags: 3
images: 4
set: {schedul.delta: 1}
points:
  a: {grid: {schedule.delta: [1, 1]}}
  b: {set: {draft.length: 4}}
  c: {plain: true, set: {schedule.kind: none}}
  c: {plain: yes}
  d: {sets: {}}
  e: {grid: {schedule.delta: []}}
  f: {set: {schedule.delta: 1}, grid: {schedule.delta: [1]}}
quality:
  frechet: {netwrk: x}
  retrieval: {}
"""
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_sweep(path)
    lines = str(caught.value).splitlines()
    wanted = [
        (1, "version: expected 1, found true"),
        (2, "imags: expected one of version, images"),
        (4, "set.schedul.delta: expected a run-time key, for instance schedule.delta"),
        (6, "points.a.grid.schedule.delta: expected each value once, found 1 again"),
        (7, "points.b.set.draft.length: expected a run-time key"),
        (8, "points.c: expected nothing about a draft, with plain: true, found the key schedule.kind"),
        (9, "points.c: expected each key once, found it again (first on line 8)"),
        (10, "points.d.sets: expected one of plain, set, grid, found an unknown key; did you mean 'set'?"),
        (11, "points.e.grid.schedule.delta: expected at least 1 value, found 0"),
        (12, "points.f: expected a key in set or in grid, found schedule.delta in both"),
        (14, "quality.frechet.netwrk: expected one of network, references, images, found an unknown key; did you"),
        (15, "quality.retrieval.references: expected a value, found nothing"),
    ]
    assert len(lines) == len(wanted)
    for line, (number, said) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{path}:{number}: {said}")
    assert "did you mean 'images'?" in lines[1]
    assert "did you mean 'schedule.delta'?" in lines[2]


def test_every_value_is_checked_by_the_spec_and_found_in_the_file(tmp_path: Path) -> None:
    text = """\
version: 1
images: 4
points:
  a: {set: {schedule.kind: uniform}, grid: {schedule.delta: [1, -1, 2]}}
  b: {set: {schedule.kind: custom}}
  c: {set: {acceptance.rule: synthetic, acceptance.rates: [1, 1, 1, 1, 1]}}
  d: {set: {schedule.kind: unifrom}}
  e: {set: {schedule.kind: custom}, grid: {schedule.values: [[1, 1, 1, 1, 1], [1, 1, 1]]}}
  f: {set: {acceptance.rule: lantern_pp, acceptance.factor: 2, acceptance.neighbours: 1000}}
  g: {set: {schedule.kind: none, schedule.delta: 2}}
"""
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        points_of(load_sweep(path), base())
    wanted = [
        (4, "points.a.grid.schedule.delta[1]: expected a number from 0 to 1e6, found -1"),
        (5, "points.b: schedule.values: expected a value (the schedule 'custom' needs one)"),
        (6, "points.c.set.acceptance.rule: expected a rule that looks at P and Q"),
        (7, "points.d.set.schedule.kind: expected one of exponential"),
        (8, "points.e.grid.schedule.values[1]: expected 5 values"),
        (9, "points.f.set.acceptance.neighbours: expected at most the 64"),
        (10, "points.g.set.schedule.delta: expected no such option with the schedule 'none'"),
    ]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(wanted)
    for line, (number, said) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{path}:{number}: {said}")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("a: {}\n  'a, delta 1.1': {}\n  b: {set: {schedule.delta: 1}}", None),
        ("'a, delta 2': {}\n  a: {grid: {schedule.delta: [2]}}", ":5: points.a: expected points with names of their"),
        (f"a: {{grid: {{schedule.delta: {list(range(MOST_POINTS + 1))}}}}}", ":4: points.a: expected at most 1000"),
    ],
)
def test_names_and_numbers_of_points(tmp_path: Path, points: str, said: str | None) -> None:
    loaded = load_sweep(write(tmp_path, f"version: 1\nimages: 4\npoints:\n  {points}\n"))
    if said is None:
        assert len(points_of(loaded, base())) == 3
        return
    with pytest.raises(Exception, match="expected") as caught:
        points_of(loaded, base())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a mapping with version, images, points, ..., found an empty file"),
        ("- 1\n", ":1: expected a mapping with version, images, points, ..., found list"),
        ("version: 1\nimages: 2\npoints: {a: {}}\nquality: {frechet: {}}\n", "at least 3 images"),
        ("version: 1\nimages: 2\npoints: {}\n", ":3: points: expected at least 1 value"),
        ("version: 1\nimages: 2\nseed: -1\npoints: {a: {}}\n", ":3: seed: expected a whole number from 0 to 2^64-1"),
        ("version: 1\nimages: 2\npoints: {a: {}}\nquality: {clip: {weights: 3}}\n", "clip.weights: expected a word"),
    ],
)
def test_a_file_that_is_no_sweep(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep(write(tmp_path, text))
    assert said in str(caught.value)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nimages: 2\nprompts: p.txt\npoints: {a: {}}\n")
    with pytest.raises(Exception, match=r"sweep\.yaml:3: prompts: expected a text file in UTF-8 at .*p\.txt"):
        load_sweep(path).prompts()
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(Exception, match=":3: prompts: expected one prompt a line"):
        load_sweep(path).prompts()
    (tmp_path / "p.txt").write_text("red apple\n\n dog \n")
    assert load_sweep(path).prompts() == ["red apple", "dog"]


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("emoji-sweep*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_sweeps_are_valid_and_small(path: Path) -> None:
    loaded = load_sweep(path)
    points = points_of(loaded, base())
    assert any(not p.plain and p.spec.schedule.kind == "none" and p.spec.acceptance.rule == "ratio" for p in points)
    assert len(points) * loaded.spec.images <= (20_000 if path.stem == "emoji-sweep-power" else 1500)

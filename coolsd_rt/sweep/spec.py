"""The file of a sweep, and its points: the run-time values to draw with, and the measures.

Knows the sweep's keys, their lines, and how they override the engine's spec. Does not know engines or drawing.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.files import read_lines
from coolsd_rt.shown import show
from coolsd_rt.spec import Spec, SpecError, with_overrides
from coolsd_rt.spec.load import as_error, read_model
from coolsd_rt.spec.messages import suggestion
from coolsd_rt.spec.model import RUN_TIME
from coolsd_rt.spec.places import Path as KeyPath
from coolsd_rt.spec.places import Problem, YamlText
from coolsd_rt.spec.section import Section, Within, complaint
from coolsd_rt.workflows.png import slug

MOST_POINTS = 1000
PLAIN = "plain"  # references drawn by plain decoding
VQ_ENCODER = "vq-encoder"


def _version(value: Any) -> Any:
    """Refuse True and 1.0, which equal 1 in Python."""
    if value != 1 or type(value) is not int:
        raise complaint("1", show(value))
    return value


def _named(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > 60:
        raise complaint("a name of 1 to 60 printable characters", show(name))
    return name


def _some_path(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise complaint("a path", repr(value))
    return value


def _run_time(key: str) -> str:
    section, _, field = key.partition(".")
    if section not in RUN_TIME or not field or "." in field:
        expected = f"a run-time key, for instance schedule.delta (sections {', '.join(RUN_TIME)})"
        raise complaint(expected, show(key), suggestion(key, [f"{name}.{field}" for name in RUN_TIME]))
    return key


def _once(values: list[Any]) -> list[Any]:
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    if again := next((text for i, text in enumerate(texts) if text in texts[:i]), None):
        raise complaint("each value once", f"{again} again")
    return values


Name = Annotated[str, AfterValidator(_named)]
AnyPath = Annotated[str, AfterValidator(_some_path)]
Key = Annotated[str, AfterValidator(_run_time)]
Values = Annotated[list[Any], Field(min_length=1), AfterValidator(_once)]


class Series(Section):
    """Points that form one line of the plot: base values, and a point per combination of the grid's values."""

    plain: bool = Field(default=False, description="Decode without a draft. Only sampling.* can be set then.")
    set: dict[Key, Any] = Field(
        default_factory=dict, description="Run-time keys (such as schedule.kind) and their values."
    )
    grid: dict[Key, Values] = Field(default_factory=dict, description="Run-time keys, each with a list of values.")

    @model_validator(mode="after")
    def _keys_that_fit(self) -> Series:
        for key in (*self.set, *self.grid):
            if self.plain and not key.startswith("sampling."):
                raise complaint("nothing about a draft, with plain: true", f"the key {key}", "drop one of them")
        if both := sorted(set_keys(self) & self.grid.keys()):
            raise complaint("a key in set or in grid", f"{both[0]} in both")
        return self


def set_keys(series: Series) -> frozenset[str]:
    """Return the keys of `set`. A function, since the field hides the builtin inside the class."""
    return frozenset(series.set)


class Frechet(Section):
    """Fréchet distance between two sets of images: between Gaussians fitted to a network's features."""

    network: AnyPath = Field(
        default=VQ_ENCODER,
        description="`vq-encoder`, the encoder of the engine's own image tokenizer, or another's safetensors file.",
    )
    references: AnyPath = Field(
        default=PLAIN,
        description="`plain`: the same prompts drawn by plain decoding with other seeds, so that the distance is from "
        "the target's own law; or a folder of PNG files.",
    )
    images: Annotated[int, Within(limits.FRECHET_IMAGES)] | None = Field(
        default=None, description="Number of `plain` references. Default: the number of images of a point."
    )


class Retrieval(Section):
    """Share of images whose nearest reference image, of all references, belongs to their prompt."""

    references: AnyPath = Field(description="Folder of PNG files named by their captions, or with references.json.")


class ClipMeasure(Section):
    """Mean cosine of the CLIP embeddings of an image and its prompt, times 100."""

    weights: AnyPath = Field(description="Local folder of a CLIP model in safetensors, with tokenizer and processor.")


class Quality(Section):
    """Quality measures of the images."""

    frechet: Frechet | None = Field(default=None, description="Fréchet distance; {} is from plain decoding.")
    retrieval: Retrieval | None = Field(default=None, description="Retrieval accuracy.")
    clip: ClipMeasure | None = Field(default=None, description="CLIP score; needs the extra clip.")


class SweepSpec(Section):
    """A sweep: series of points over run-time values, with the same prompts and seeds at each point."""

    version: Annotated[Literal[1], BeforeValidator(_version)] = Field(description="Version of this format.")
    images: Annotated[int, Within(limits.IMAGES)] = Field(description="Number of images of each point.")
    seed: Annotated[int, Within(limits.SEED)] = Field(
        default=0, description="Random seed. Image i uses seed + i at every point."
    )
    prompts: AnyPath | None = Field(
        default=None, description="Text file with one prompt per line. Default: the sample prompts of the engine."
    )
    set: dict[Key, Any] = Field(default_factory=dict, description="Run-time keys and values of all points.")
    points: dict[Name, Series] = Field(min_length=1, description="Series by name.")
    quality: Quality = Field(
        default_factory=Quality, description="Quality metrics. Default: none, only the accept length."
    )

    @model_validator(mode="after")
    def _enough(self) -> SweepSpec:
        if self.quality.frechet is not None and self.images < 3:
            raise complaint("at least 3 images for a Fréchet distance", str(self.images))
        return self


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep's file. Paths in it are relative to its folder."""

    spec: SweepSpec
    path: Path
    source: YamlText

    def file(self, name: str) -> Path:
        """Resolve a path of the sweep's file."""
        return Path(os.path.normpath(self.path.parent / name))

    def error(self, key: KeyPath, expected: str, found: str, fix: str = "") -> UserError:
        """Return an error that names the line of a key."""
        return as_error(self.path, Problem(self.source.line(key), key, expected, found, fix))

    def prompts(self) -> list[str]:
        """Return the prompts of the file that the sweep names; empty without one. Raises UserError: no such file."""
        if self.spec.prompts is None:
            return []
        path = self.file(self.spec.prompts)
        try:
            return read_lines(path, f"a text file in UTF-8 at {path}", stdin=False)
        except UserError as e:
            expected = e.expected if e.what == str(path) else f"{e.expected} at {e.what}"
            raise self.error(("prompts",), expected, e.found, e.fix) from e


@dataclass(frozen=True)
class Point:
    """One combination of run-time values. axes: the values from the grid, in the grid's order."""

    index: int
    series: str
    axes: dict[str, Any]
    plain: bool
    spec: Spec

    @property
    def name(self) -> str:
        """The series and the grid's values, such as "cool, delta 1.1"."""
        shown = (f"{key.partition('.')[2]} {_shown(value)}" for key, value in self.axes.items())
        return ", ".join((self.series, *shown))

    @property
    def file_stem(self) -> str:
        """File name of the point's results, without extension."""
        return f"{self.index:03d}-{slug(self.name)}"

    def identity(self) -> dict[str, Any]:
        """Return what its images depend on besides engine, prompts and seeds."""
        return {"name": self.name, "plain": self.plain, **self.spec.run_view()}


def _shown(value: Any) -> str:
    return " ".join(_shown(item) for item in value) if isinstance(value, list) else show(value).strip('"')


def load_sweep(path: Path) -> LoadedSweep:
    """Read and check a sweep's file. Raises UserError and SpecError as `coolsd_rt.spec.load_spec` does."""
    spec, source, problems = read_model(path, SweepSpec, "version, images, points")
    if spec is None or problems:
        raise SpecError([as_error(path, p) for p in sorted(problems, key=lambda p: p.line)])
    return LoadedSweep(spec, path, source)


def points_of(loaded: LoadedSweep, base: Spec) -> list[Point]:
    """Return every point, applied to the engine's spec. Raises SpecError for refused values or synthetic acceptance."""
    points: list[Point] = []
    problems: dict[str, UserError] = {}
    for series, given in loaded.spec.points.items():
        ranges = [range(len(values)) for values in given.grid.values()]
        if len(points) + math.prod(map(len, ranges)) > MOST_POINTS:
            fix = "sweep in parts"
            raise loaded.error(("points", series), f"at most {MOST_POINTS} points in one sweep", "more up to here", fix)
        for choice in itertools.product(*ranges):
            chosen = dict(zip(given.grid, choice, strict=True))
            try:
                points.append(_point(len(points), loaded, base, series, chosen))
            except SpecError as e:
                problems |= {str(problem): problem for problem in e.problems}
    names = [point.name for point in points]
    for point in points:
        if point.name in names[: point.index]:
            found, fix = f"two points called {point.name!r}", "rename the series"
            problems[point.name] = loaded.error(("points", point.series), "points with names of their own", found, fix)
    if problems:
        raise SpecError(list(problems.values()))
    return points


def reference_spec(loaded: LoadedSweep, base: Spec) -> Spec:
    """Return the spec for plain-decoding references: the engine's spec with the sampling shared by all points."""
    return with_overrides(base, _sampling(loaded.spec.set))


def _sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key.startswith("sampling.")}


def _point(index: int, loaded: LoadedSweep, base: Spec, series: str, chosen: dict[str, int]) -> Point:
    """Return one point. chosen: index of the value on each axis."""
    given = loaded.spec.points[series]
    common = _sampling(loaded.spec.set) if given.plain else loaded.spec.set
    axes = {key: given.grid[key][i] for key, i in chosen.items()}
    places = _Places(loaded, series, chosen)
    spec = with_overrides(base, {**common, **given.set, **axes}, places)
    if spec.acceptance.rule == "synthetic" and not given.plain:
        expected, fix = "a rule that looks at P and Q: quality is measured", "synthetic is for timing"
        raise SpecError([UserError(places["acceptance.rule"], expected=expected, found="synthetic", fix=fix)])
    return Point(index, series, axes, given.plain, spec)


@dataclass(frozen=True)
class _Places(Mapping[str, str]):
    """Run-time keys to their place in the sweep's file, for the errors of one point."""

    loaded: LoadedSweep
    series: str
    choice: Mapping[str, int]

    def __getitem__(self, key: str) -> str:
        spec, given = self.loaded.spec, self.loaded.spec.points[self.series]
        here: KeyPath = ("points", self.series)
        if key in given.grid:
            here = (*here, "grid", key, self.choice[key])
        elif key in given.set:
            here = (*here, "set", key)
        elif key in spec.set:
            here = ("set", key)
        else:
            return f"{self.loaded.error(here, '', '').what}: {key}"
        return self.loaded.error(here, "", "").what

    def __iter__(self) -> Iterator[str]:
        return iter({**self.loaded.spec.set, **self.loaded.spec.points[self.series].set, **self.choice})

    def __len__(self) -> int:
        return len(list(iter(self)))

"""Reads a sweep's folder image by image: rounds, whether retrieval is right, and features, at every point.

Nothing is written into the folder. Knows the layout of `coolsd_rt.sweep.run`, retrieval and features. Does not know
statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.metrics.metric import Images
from coolsd_rt.metrics.references import read_folder
from coolsd_rt.metrics.retrieval import RetrievalAccuracy, nearest
from coolsd_rt.store.results import Arrays, Batches
from coolsd_rt.store.strict import Strict, read_model
from coolsd_rt.sweep.results import PointResult, read_point
from coolsd_rt.sweep.run import HEAD
from coolsd_rt.workflows.png import slug
from tools.paper.paired import Bools, Floats, LawImages

if TYPE_CHECKING:
    from coolsd_rt.metrics.frechet import VqFeatures

LOSSLESS = "lossless"
PART = 128  # images whose nearest references are looked for at once
_FIELDS = ("rounds", "accepts", "pixels")


class SweepHead(Strict):
    """The contents of sweep.json."""

    version: Literal[1]
    engine: str
    draft: dict[str, Any]
    images: int
    seed: int
    prompts: list[str]
    batch: int
    points: list[dict[str, Any]]
    references: dict[str, Any]
    quality: dict[str, Any]


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's folder and its head."""

    path: Path
    head: SweepHead

    @staticmethod
    def at(path: Path) -> SweepFolder:
        """Raises UserError: there is no sweep."""
        fix = "name a folder that `coolsd-rt sweep` wrote"
        head = read_model(path / HEAD, SweepHead, "the head of a sweep", RESULT_BYTES, fix=fix, error=UserError)
        if len(head.prompts) != head.images or head.batch < 1 or not head.points or head.images < 3:
            raise UserError(str(path / HEAD), expected="points, and a prompt of each of 3 images or more", fix=fix)
        return SweepFolder(path, head)

    @property
    def names(self) -> list[str]:
        """The points' names."""
        return [str(point.get("name")) for point in self.head.points]

    def stem(self, index: int) -> Path:
        """Path of a point's files, without extension."""
        return self.path / "points" / f"{index:03d}-{slug(self.names[index])}"

    def finished(self, finished_only: bool = False) -> list[int]:
        """Return the indices of the finished points. Raises UserError if points lack, unless `finished_only`."""
        stems = [self.stem(index) for index in range(len(self.names))]
        there = [i for i, stem in enumerate(stems) if why_unusable(stem.with_name(f"{stem.name}.json")) != "nothing"]
        lacking = [name for i, name in enumerate(self.names) if i not in there]
        if lacking and not (finished_only and there):
            found = f"{len(lacking)} of {len(stems)} points that lack: {'; '.join(lacking)}"
            fix = "finish it with the same `coolsd-rt sweep`" + (", or add --finished-only" if there else "")
            raise UserError(str(self.path), expected="a finished sweep", found=found, fix=fix)
        return there

    def result(self, index: int) -> PointResult:
        """Return a finished point's figures. Raises CoolsdError: broken, or of another point."""
        stem = self.stem(index)
        path = stem.with_name(f"{stem.name}.json")
        found = read_point(path)
        if found.name != self.names[index] or found.images != self.head.images:
            expected = f"{self.head.images} images of {self.names[index]!r}"
            raise CoolsdError(str(path), expected=expected, found=f"{found.images} of {found.name!r}", fix="remove it")
        return found

    def batches(self, folder: Path, images: int, fields: tuple[str, ...]) -> Iterator[Arrays]:
        """Yield the stored batches of a point or of the references. Raises CoolsdError: one lacks, or is broken."""
        kept = Batches(folder, fields, "a batch of a sweep's images")
        for number in range(math.ceil(images / self.head.batch)):
            part = kept.get(number, lambda: _lacking(folder))
            size = min(self.head.batch, images - number * self.head.batch)
            if len(part["pixels"]) != size:
                found = str(len(part["pixels"]))
                raise CoolsdError(f"{folder}: batch {number}", expected=f"{size} images", found=found, fix="remove it")
            yield part

    def plain_images(self) -> Images:
        """Return the references of plain decoding, uint8 [M, F, F, 3]; none if the sweep drew none."""
        count = int(self.head.references.get("images", 0))
        parts = [part["pixels"] for part in self.batches(self.path / "references", count, ("pixels",))]
        return np.concatenate(parts) if parts else np.zeros((0, 0, 0, 3), np.uint8)


def _lacking(folder: Path) -> Arrays:
    fix = "finish the sweep with the same `coolsd-rt sweep`"
    raise CoolsdError(str(folder), expected="every batch of images", found="one that lacks", fix=fix)


@dataclass(frozen=True)
class Measured:
    """What is measured of the images. retrieval, network: None leaves the figure out."""

    retrieval: RetrievalAccuracy | None
    network: VqFeatures | None

    @staticmethod
    def of(sweep: SweepFolder, references: Path | None, network: Callable[[], Path]) -> Measured:
        """Return the measures that the sweep has, with the files that it had.

        references: folder of the retrieval's references. A sweep without the measure has it too if they are named.
        network: returns the file of the feature network; called if the sweep has references of plain decoding.

        Raises UserError: files lack, or are others than the sweep's.
        """
        asked, retrieval, loaded = sweep.head.quality, None, None
        if references is not None or "retrieval" in asked:
            if references is None or (found := why_unusable(references) or "a file") != "a folder":
                expected = "the folder of the retrieval's references"
                found = "nothing" if references is None else f"{found} at {references}"
                fix = "the demo's are made by: python tools/emoji_references.py out/emoji-references"
                raise UserError("--references", expected=expected, found=found, fix=fix)
            retrieval = RetrievalAccuracy(read_folder(references), references)
            _same("--references", asked.get("retrieval"), retrieval.identity())
        if sweep.head.references.get("images"):
            from coolsd_rt.metrics.frechet import FrechetDistance, VqFeatures  # torch takes seconds to import

            loaded = VqFeatures.load(network())
            _same("the feature network", asked.get("frechet"), FrechetDistance(loaded, None).identity())
        return Measured(retrieval, loaded)

    def point(self, sweep: SweepFolder, index: int) -> LawImages:
        """Return one finished point, image by image. Raises CoolsdError: images lack, or its files disagree."""
        stem, result = sweep.stem(index), sweep.result(index)
        parts = list(sweep.batches(stem, sweep.head.images, _FIELDS))
        rounds = np.concatenate([part["rounds"] for part in parts]).astype(np.float64)
        accepted = sum(int(part["accepts"].sum()) for part in parts)
        if len(rounds) != sweep.head.images or int(rounds.sum()) != result.rounds:
            there = f"{int(rounds.sum())} of {len(rounds)} images"
            raise CoolsdError(str(stem), expected=f"{result.rounds} rounds", found=there, fix="draw the point again")
        tokens = np.full(len(rounds), (rounds.sum() + accepted) / len(rounds))  # all images have as many
        pixels = np.concatenate([part["pixels"] for part in parts])
        correct, found = self.correct(pixels, sweep.head.prompts), self.features(pixels)
        return LawImages(result.name, result.series, tokens, rounds, correct, found)

    def correct(self, pixels: Images, prompts: list[str]) -> Bools | None:
        """Return whether each image's nearest reference is that of its prompt. Raises UserError as `check` does."""
        if self.retrieval is None:
            return None
        self.retrieval.check(int(pixels.shape[1]), prompts)
        own = np.array([self.retrieval.own[slug(prompt)] for prompt in prompts])
        starts = range(0, len(pixels), PART)
        found = np.concatenate([nearest(pixels[k : k + PART], self.retrieval.references) for k in starts])
        right: Bools = found == own
        return right

    def features(self, pixels: Images) -> Floats | None:
        """Return the features of images, float64 [N, D]."""
        if self.network is None:
            return None
        from coolsd_rt.metrics.frechet import features

        found: Floats = features(self.network, pixels).numpy()
        return found


def _same(what: str, asked: Any, found: Any) -> None:
    if asked is not None and asked != found:
        fix = "name the sweep's with --references, and with --engine or --network"
        raise UserError(what, expected="the files that the sweep measured with", found="others", fix=fix)


def base_of(points: list[LawImages], name: str | None) -> int:
    """Return the index of the base: the point `name`, or the one of the series `lossless`. Raises UserError: none."""
    names = [p.name for p in points]
    found = [i for i, p in enumerate(points) if (p.name == name if name else p.series == LOSSLESS)]
    if not found:
        expected = f"a finished point called {name!r}" if name else f"a finished point of the series {LOSSLESS}"
        raise UserError("--base", expected=expected, found="; ".join(names), fix="name one of them with --base")
    return found[0]


def read_points(
    sweep: SweepFolder, measured: Measured, indices: list[int], on_point: Callable[[str], None]
) -> list[LawImages]:
    """Return finished points, image by image. on_point: called with the name of each before it is read."""
    out = []
    for index in indices:
        on_point(sweep.names[index])
        out.append(measured.point(sweep, index))
    return out

"""The result of a `coolsd_rt.Pipeline` call: images with their provenance, and figures of drawing them.

Knows images, tokens and provenance. Does not know engines or how an image is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coolsd_rt.errors import UserError
from coolsd_rt.files import bad_name
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.shown import shown
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.workflows.drawing import Asked
from coolsd_rt.workflows.generate import placing
from coolsd_rt.workflows.generate.identity import PIXELS, sha256_pixels
from coolsd_rt.workflows.generate.report import seconds_by_phase
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slots import DecodedImage
from coolsd_rt.workflows.texts import WrittenText


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image, and the values needed to draw it again.

    Attributes:
        image: RGB, F x F pixels.
        index: position in the call, from 0.
        prompt: the text that the image was drawn from.
        seed: seed of its random numbers; the same seed, prompt, settings and plan give the same image. Under pacing
            "auto" the provenance names the plan, which depends on the machine and on the number of images at once.
        tokens: int64 [N], the image tokens in the order in which they were decided (read only).
        provenance: JSON data; `PipelineOutput.save` writes it into the PNG.
    """

    image: Image.Image = field(repr=False)
    index: int
    prompt: str
    seed: int
    tokens: NDArray[np.int64] = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class GenerationStats:
    """Figures of a call.

    Attributes:
        images: number of images drawn.
        tokens: image tokens of all images.
        rounds: rounds of all images; a round is a step of the target that decides tokens.
        seconds: wall time, without loading the engine.
        seconds_by_phase: wall time by phase; the phases add up to `seconds`. None: the loop that ran does not measure
            it.
        loop: the loop that ran, "host" or "device"; None if nothing was drawn.
        mean_acceptance_length: tokens per round, including the resampled or bonus token; 1.0 in plain decoding, NaN
            without rounds.
        acceptance_by_position: share of accepted drafts among those evaluated at each draft position, L values; empty
            in plain decoding.
    """

    images: int
    tokens: int
    rounds: int
    seconds: float
    seconds_by_phase: Mapping[str, float | None]
    loop: LoopTaken | None
    mean_acceptance_length: float
    acceptance_by_position: tuple[float, ...]

    @property
    def tokens_per_second(self) -> float:
        """Image tokens per second of wall time."""
        return self.tokens / self.seconds if self.seconds else float("nan")

    @staticmethod
    def of(whole: Statistics, loop: LoopTaken | None, tokens: int, seconds: float) -> GenerationStats:
        """Return the figures of finished images. tokens: image tokens per image."""
        images = len(whole.rounds)
        return GenerationStats(
            images=images,
            tokens=images * tokens,
            rounds=int(whole.rounds.sum()),
            seconds=seconds,
            seconds_by_phase=seconds_by_phase(whole, loop, seconds),
            loop=loop,
            mean_acceptance_length=whole.mean_acceptance_length,
            acceptance_by_position=tuple(whole.acceptance_by_position),
        )


_FIXES = {
    placing.FIX_TAKEN: "give another folder, or overwrite=True to replace the existing files",
    placing.FIX_PLACE: "give another folder",
}
"""What the command says to do about a name that is taken, to what a caller of `save` has to do."""


@dataclass(frozen=True, eq=False)
class PipelineOutput:
    """The images or texts of a call, in the order of the prompts: all of the first prompt, then of the second.

    Attributes:
        records: each image with its prompt, seed, tokens and provenance.
        stats: figures of the call.
        warnings: warnings about the images, such as unknown words or synthetic acceptance.
        images_per_prompt: the requested number.
        written: each text with its prompt, seed, tokens and why it ended, of an engine that writes text.
    """

    records: tuple[ImageRecord, ...]
    stats: GenerationStats
    warnings: tuple[str, ...]
    images_per_prompt: int = 1
    written: tuple[WrittenText, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The texts without their records."""
        return [text.text for text in self.written]

    @property
    def text(self) -> str:
        """The text of a call that asked for one.

        Raises:
            UserError: there are several, or images.
        """
        if len(self.written) != 1:
            found = f"{len(self.records)} images" if self.records else f"{len(self.written)} texts"
            raise UserError("text", expected="a call for one text", found=found, fix="use texts or images")
        return self.written[0].text

    @property
    def images(self) -> list[Image.Image]:
        """The images without their records."""
        return [record.image for record in self.records]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write the images, and a contact sheet if there are several, to the same files as the command `generate`.

        overwrite: replace existing files. Without it, an image that exists already is kept, and any other file with one
        of the names is an error.

        Returns the paths of the images, in the order of `records`.

        Raises:
            UserError: a file with other content has one of the names.
            CoolsdError: the disk is full, or the folder is not writable.
        """
        if not isinstance(folder, str | Path):
            raise UserError("folder", expected="a path: str or pathlib.Path", found=shown(folder))
        if found := bad_name(folder):
            raise UserError("folder", expected="a folder, or a path for a new folder", found=found)
        out = Path(folder)
        try:
            return self._save(out, overwrite)
        except UserError as error:  # in the words of the command that writes the same files
            fix = _FIXES.get(error.fix, error.fix)
            raise UserError(error.what, expected=error.expected, found=error.found, fix=fix) from None

    def _save(self, out: Path, overwrite: bool) -> list[Path]:
        check_folder(out)
        every = [Asked(record.index, record.prompt, record.seed) for record in self.records]
        placed = placing.place(out, every, lambda one: self.records[one.index].provenance, overwrite)
        with placing.output_folder(out):
            for one in placed:
                if not one.there:
                    placing.write_image(one, self._pixels(one), overwrite)
            placing.finish_sheet(out, placed, self.images_per_prompt, self._pixels, overwrite)
        return [one.path for one in placed]

    def _pixels(self, one: placing.Placed) -> NDArray[np.uint8]:
        return np.asarray(self.records[one.asked.index].image.convert("RGB"))


def record_of(prepared: Prepared, image: DecodedImage) -> ImageRecord:
    """Return a finished image with what is needed to draw it again."""
    job, tokens = image.job, np.array(image.codes, np.int64)
    tokens.setflags(write=False)
    said = prepared.provenance(Asked(job.index, job.prompt, job.seed))
    provenance = {**said, PIXELS: sha256_pixels(image.pixels)}
    return ImageRecord(Image.fromarray(image.pixels), job.index, job.prompt, job.seed, tokens, provenance)

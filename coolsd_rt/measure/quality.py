"""What a measure of pictures is, which ones a sweep asks for, and which points no other beats.

Knows the measures by name. Does not know how any of them is computed, nor how pictures were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from coolsd_rt.measure.sweep_spec import PLAIN, VQ_ENCODER, Frechet, LoadedSweep
from coolsd_rt.spec.source import Path as KeyPath

Pictures = NDArray[np.uint8]  # RGB [N, F, F, 3]
Z95 = 1.959963984540054  # of a two-sided interval of 95%


class Figure(BaseModel):
    """A value and its 95% interval, which is None where too little was seen. `interval` says of what kind it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None
    high: float | None
    interval: str

    @staticmethod
    def around(value: float, error: float, interval: str) -> Figure:
        """With a symmetric interval of so many standard errors; NaN if the error is not known."""
        known = math.isfinite(error)
        low, high = (value - Z95 * error, value + Z95 * error) if known else (None, None)
        return Figure(value=value, low=low, high=high, interval=interval)

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{interval}"


@dataclass(frozen=True)
class Kind:
    """What a measure is called and which way is better."""

    name: str
    label: str
    lower_is_better: bool = False


FRECHET = Kind("frechet", "Fréchet distance", lower_is_better=True)
RETRIEVAL = Kind("retrieval", "retrieval accuracy")
CLIP = Kind("clip", "CLIP score")
KINDS = {kind.name: kind for kind in (FRECHET, RETRIEVAL, CLIP)}


class Measure(Protocol):
    """One measure, ready to use: its files are read, its network is loaded."""

    @property
    def kind(self) -> Kind: ...

    @property
    def plain_pictures(self) -> bool:
        """Whether it still needs pictures of plain decoding: `refer` is called with them before `measure`."""
        ...

    def identity(self) -> Any:
        """What its figures depend on beside the pictures, as JSON data."""
        ...

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Raise UserError if it cannot measure pictures of `side` pixels of these prompts. Before any is drawn."""
        ...

    def refer(self, pictures: Pictures) -> None:
        """Take pictures of plain decoding as the references."""
        ...

    def measure(self, pictures: Pictures, prompts: Sequence[str]) -> Figure:
        """The figure of pictures, one a prompt."""
        ...


def measures_of(loaded: LoadedSweep, tokenizer: Callable[[], Path]) -> list[Measure]:
    """The measures that a sweep asks for. tokenizer: finds the weights of the engine's image tokenizer.

    Raises UserError: files that are missing or do not fit. MissingExtra, ModuleNotFoundError: a package is missing.
    """
    quality, out = loaded.spec.quality, list[Measure]()
    if quality.frechet is not None:
        out.append(_frechet(loaded, quality.frechet, tokenizer))
    if quality.retrieval is not None:
        from coolsd_rt.measure.quality_folder import read_folder
        from coolsd_rt.measure.quality_retrieval import RetrievalAccuracy

        key = ("quality", "retrieval", "references")
        path = _folder(loaded, key, quality.retrieval.references)
        out.append(RetrievalAccuracy(read_folder(path), path))
    if quality.clip is not None:
        from coolsd_rt.measure.quality_clip import ClipScore

        out.append(ClipScore(_folder(loaded, ("quality", "clip", "weights"), quality.clip.weights)))
    return out


def _frechet(loaded: LoadedSweep, asked: Frechet, tokenizer: Callable[[], Path]) -> Measure:
    from coolsd_rt.measure.quality_folder import read_folder
    from coolsd_rt.measure.quality_frechet import FrechetDistance, VqFeatures

    if asked.network == VQ_ENCODER:
        weights = tokenizer()
    else:
        weights = loaded.file(asked.network)
        if not weights.is_file():
            key = ("quality", "frechet", "network")
            raise loaded.error(key, f"{VQ_ENCODER}, or the safetensors file of an image tokenizer", str(weights))
    network = VqFeatures.load(weights)
    if asked.references == PLAIN:
        return FrechetDistance(network, None)
    path = _folder(loaded, ("quality", "frechet", "references"), asked.references)
    return FrechetDistance(network, read_folder(path))


def _folder(loaded: LoadedSweep, key: KeyPath, name: str) -> Path:
    path = loaded.file(name)
    if not path.is_dir():
        fix = "" if key[1] == "clip" else f"the demo's are made by: python tools/emoji_references.py {path}"
        found = "a file" if path.exists() else "nothing"
        raise loaded.error(key, f"a folder at {path}", found, fix)
    return path


def front(lengths: Sequence[float], values: Sequence[float], lower_is_better: bool) -> list[int]:
    """Indices of the points that no other beats, by rising accept length.

    A point is beaten by one that is at least as long and at least as good, and better in one of the two.
    """
    good = [-v if lower_is_better else v for v in values]
    order = sorted(range(len(good)), key=lambda i: (-lengths[i], -good[i]))
    kept: list[int] = []
    for i in order:
        last = kept[-1] if kept else None
        if last is None or good[i] > good[last] or (good[i] == good[last] and lengths[i] == lengths[last]):
            kept.append(i)
    return kept[::-1]

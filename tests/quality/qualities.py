"""What the tests of `quality` share: captions, references, made-up weights of Inception, and a run of it all."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from coolsd_rt.models.inception import shapes
from coolsd_rt.quality.run import QualityMeasures, QualityReport, quality
from coolsd_rt.workflows.generate.run import GenerateConfig

# Of words that the fake engine knows.
WORDS = {"139": "red apple", "285": "green apple", "632": "yellow star", "724": "green star", "1000": "red star"}
CAPTIONS = {"139": "red apple", "285": "blue star", "632": "green leaf", "724": "red star", "1000": "blue apple"}


def write_captions(path: Path, captions: dict[str, str] | None = None, reverse: bool = False) -> Path:
    """A list of {"id", "caption"}; reverse: in the other order."""
    entries = [{"id": int(name), "caption": text} for name, text in (captions or CAPTIONS).items()]
    path.write_text(json.dumps(entries[::-1] if reverse else entries))
    return path


def coco(captions: dict[str, str] | None = None) -> Any:
    """COCO's format: every image with three captions, the lowest annotation id's not first."""
    entries = list((captions or CAPTIONS).items())
    images = [{"id": int(name), "file_name": f"{int(name):012d}.jpg", "width": 9} for name, _ in entries]
    annotations = []
    for k, (name, text) in enumerate(entries):
        rows = ((3 * k + 2, "the second"), (3 * k + 1, text), (3 * k + 3, "the third"))
        annotations += [{"image_id": int(name), "id": at, "caption": said} for at, said in rows]
    return {"info": {}, "images": images, "annotations": annotations[::-1]}


def image(seed: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_references(folder: Path, ids: list[str] | None = None) -> Path:
    """PNG files under COCO's names, each with an image that its id alone decides."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ids or list(CAPTIONS):
        Image.fromarray(image(int(name))).save(folder / f"{int(name):012d}.png")
    return folder


@cache
def inception_state() -> dict[str, torch.Tensor]:
    """Made-up weights of the published names and shapes, the same on every machine."""
    rng, state = np.random.default_rng(0), {}
    sizes = shapes()
    for name in sorted(sizes):
        values = rng.standard_normal(sizes[name], dtype=np.float32)
        if name.endswith("conv.weight"):
            values *= np.float32((2 / np.prod(sizes[name][1:])) ** 0.5)
        elif name.endswith(("running_var", "bn.weight")):
            values = np.float32(0.5) + rng.random(sizes[name], dtype=np.float32)
        else:
            values *= np.float32(0.1)
        state[name] = torch.from_numpy(values)
    return state


def write_inception(path: Path) -> Path:
    save_file(inception_state(), str(path))
    return path


class Means:
    """In the place of Inception: the mean colour of each image."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def identity(self) -> Any:
        return {"network": str(self.path)}

    def features(self, images: list[Any]) -> Any:
        return np.array([p.astype(np.float32).mean((0, 1)) for p in images])


def run(engine: Path, folder: Path, out: str = "out", **values: Any) -> QualityReport:
    """With the files of `folder`, made if they are not there."""
    folder.mkdir(exist_ok=True)
    captions, references = folder / "captions.json", folder / "refs"
    if not captions.exists():
        write_captions(captions, WORDS)
    if not references.exists():
        write_references(references, list(WORDS))
    wanted = values.pop("wanted", QualityMeasures(references, inception=folder / "inception"))
    listener, limit = values.pop("listener", None), values.pop("limit", None)
    return quality(engine, captions, folder / out, GenerateConfig((), **values), wanted, limit, listener)


def figures(report: QualityReport) -> Any:
    """All but what a clock says."""
    return {key: value for key, value in report.as_dict().items() if key != "seconds_per_image"}


def files(folder: Path) -> dict[str, bytes]:
    """What is drawn, as pixels: a PNG also says how long it took."""
    return {p.name: np.asarray(Image.open(p)).tobytes() for p in (folder / "images").iterdir()}

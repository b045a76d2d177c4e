"""Creates the measures that a sweep asks for.

Knows a sweep's `quality` section and the files of each measure. Does not know how a measure is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coolsd_rt.files import why_unusable
from coolsd_rt.metrics.metric import Measure
from coolsd_rt.spec.places import Path as KeyPath
from coolsd_rt.sweep.spec import PLAIN, VQ_ENCODER, Frechet, LoadedSweep


def measures_of(loaded: LoadedSweep, tokenizer: Callable[[], Path]) -> list[Measure]:
    """Return the measures of a sweep. tokenizer: returns the weights file of the engine's image tokenizer.

    Raises UserError if files are missing or do not fit, MissingExtra or ModuleNotFoundError if a package is missing.
    """
    quality, out = loaded.spec.quality, list[Measure]()
    if quality.frechet is not None:
        out.append(_frechet(loaded, quality.frechet, tokenizer))
    if quality.retrieval is not None:
        from coolsd_rt.metrics.references import read_folder
        from coolsd_rt.metrics.retrieval import RetrievalAccuracy

        key = ("quality", "retrieval", "references")
        path = _folder(loaded, key, quality.retrieval.references)
        out.append(RetrievalAccuracy(read_folder(path), path))
    if quality.clip is not None:
        from coolsd_rt.metrics.clip import ClipScore

        out.append(ClipScore(_folder(loaded, ("quality", "clip", "weights"), quality.clip.weights)))
    return out


def _frechet(loaded: LoadedSweep, asked: Frechet, tokenizer: Callable[[], Path]) -> Measure:
    from coolsd_rt.metrics.frechet import FrechetDistance, VqFeatures
    from coolsd_rt.metrics.references import read_folder

    if asked.network == VQ_ENCODER:
        weights = tokenizer()
    else:
        weights = loaded.file(asked.network)
        if why_unusable(weights):
            key = ("quality", "frechet", "network")
            raise loaded.error(key, f"{VQ_ENCODER}, or the safetensors file of an image tokenizer", str(weights))
    network = VqFeatures.load(weights)
    if asked.references == PLAIN:
        return FrechetDistance(network, None)
    path = _folder(loaded, ("quality", "frechet", "references"), asked.references)
    return FrechetDistance(network, read_folder(path))


def _folder(loaded: LoadedSweep, key: KeyPath, name: str) -> Path:
    path = loaded.file(name)
    if (found := why_unusable(path) or "a file") != "a folder":
        tool = Path("tools/emoji_references.py")  # in a checkout
        fix = f"the demo's are made by: python {tool} {path}" if key[1] != "clip" and tool.is_file() else ""
        raise loaded.error(key, f"a folder at {path}", found, fix)
    return path

"""The file of precomputed caption features: safetensors with one tensor per caption, each with a checksum.

    tensor      SHA-256 of the cleaned caption -> F32, F16 or BF16 [n, E]: features of the n tokens that the encoder's
                mask keeps, in order. The mask of a caption padded on the right is n ones, then zeros, so n suffices.
    metadata    format, encoder, length (the most tokens a caption may have), captions and checksums (JSON by tensor)

Knows the file. Does not know encoders or text. Needs neither torch nor safetensors: an engine runs without them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats32
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import JsonError, parse_json
from coolsd_rt.limits import FEATURE_TOKENS
from coolsd_rt.shown import shorten
from coolsd_rt.store.weights import TensorInfo, check_safetensors

FEATURES_FILE = "features.safetensors"  # file name in an engine's folder
FORMAT = "coolsd-rt caption features 1"
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_AGAIN = "compute it again: coolsd-rt precompute --help"


def key_of(caption: str) -> str:
    """Return the tensor name of a cleaned caption."""
    return hashlib.sha256(caption.encode()).hexdigest()


def metadata(encoder: str, length: int, captions: Mapping[str, str], checksums: Mapping[str, str]) -> dict[str, str]:
    """Return the header's metadata in a fixed order. captions and checksums: by tensor name."""
    return {
        "format": FORMAT,
        "encoder": encoder,
        "length": str(length),
        "captions": json.dumps(dict(captions), sort_keys=True),
        "checksums": json.dumps(dict(checksums), sort_keys=True),
    }


@dataclass(frozen=True)
class FeatureFile:
    """A checked file of features.

    Attributes:
        encoder: name of the encoder that computed them.
        length: prefix length W.
        dim: feature width E.
        captions: cleaned captions by tensor name.
    """

    path: Path
    encoder: str
    length: int
    dim: int
    captions: Mapping[str, str]
    _checksums: Mapping[str, str]
    _tensors: Mapping[str, TensorInfo]
    _places: Mapping[str, tuple[int, int]]

    @staticmethod
    def open(path: Path) -> FeatureFile:
        """Read and check the header. Raises UserError if the file is not a feature file or is inconsistent."""
        header = check_safetensors(path)
        facts = header.metadata
        if facts.get("format") != FORMAT:
            found = f"'{shorten(facts['format'])}'" if "format" in facts else "another safetensors file"
            raise UserError(str(path), expected=f"a file of '{FORMAT}'", found=found, fix=_AGAIN)
        encoder, length = _fact(path, facts, "encoder"), _length(path, facts)
        captions, checksums = _words(path, facts, "captions"), _words(path, facts, "checksums")
        dim = next(iter(header.tensors.values())).shape[-1:]
        for name, info in header.tensors.items():
            fits = len(info.shape) == 2 and info.shape[1:] == dim and 1 <= info.shape[0] <= length and dim[0] > 0
            if info.dtype not in _TYPES or not fits:
                expected = f"F32, F16 or BF16 of 1 to {length} tokens by {dim[0] if dim else 'E'}"
                found = f"{info.dtype} {list(info.shape)}"
                raise UserError(f"{path}: {shorten(name, 80)}", expected=expected, found=found, fix=_AGAIN)
            if name not in checksums or key_of(captions.get(name, "")) != name:
                found = "no checksum, or a different one"
                expected = "its caption and checksum"
                raise UserError(f"{path}: {shorten(name, 80)}", expected=expected, found=found, fix=_AGAIN)
        if more := sorted({*captions, *checksums} - set(header.tensors)):
            raise UserError(f"{path}: metadata", expected="tensors of all captions", found=f"no {more[0]}", fix=_AGAIN)
        return FeatureFile(path, encoder, length, dim[0], captions, checksums, header.tensors, _places(path))

    def get(self, caption: str) -> Floats32 | None:
        """Return `rows` of a cleaned caption; None if the file lacks it."""
        return self.rows(caption) if key_of(caption) in self._tensors else None

    def checksum(self, caption: str) -> str | None:
        """Return the SHA-256 of a cleaned caption's features; None if the file lacks it. Reads no features."""
        return self._checksums.get(key_of(caption))

    def rows(self, caption: str) -> Floats32:
        """Return the features float32 [n, E] of a cleaned caption that the file has.

        Raises CoolsdError if the bytes do not match their checksum or are not finite.
        """
        name = key_of(caption)
        info, (begin, end) = self._tensors[name], self._places[name]
        with self.path.open("rb") as file:
            file.seek(begin)
            data = file.read(end - begin)
        what = f"{self.path}: the features of '{shorten(caption)}'"
        if (found := hashlib.sha256(data).hexdigest()) != self._checksums[name]:
            expected = f"SHA-256 {self._checksums[name][:12]}…"
            raise CoolsdError(what, expected=expected, found=f"{found[:12]}…", fix=_AGAIN)
        raw = np.frombuffer(data, _TYPES[info.dtype]).reshape(info.shape)
        values = (raw.astype(np.uint32) << 16).view(np.float32) if info.dtype == "BF16" else raw.astype(np.float32)
        if not np.isfinite(values).all():
            raise CoolsdError(what, expected="finite numbers", found="NaN or infinite ones", fix=_AGAIN)
        return values


def _fact(path: Path, facts: Mapping[str, str], key: str) -> str:
    """Return a string of the metadata. Raises UserError if it is missing or cannot be encoded as UTF-8."""
    text = facts.get(key)
    if text is None or _SURROGATE.search(text):
        found = "none" if text is None else "half of a surrogate pair, which is not a character"
        raise UserError(f"{path}: metadata.{key}", expected="a text", found=found, fix=_AGAIN)
    return text


def _length(path: Path, facts: Mapping[str, str]) -> int:
    text = _fact(path, facts, "length")
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) not in FEATURE_TOKENS:
        expected = f"a number from {FEATURE_TOKENS.low} to {FEATURE_TOKENS.high}"
        raise UserError(f"{path}: metadata.length", expected=expected, found=f"'{shorten(text)}'", fix=_AGAIN)
    return int(text)


def _words(path: Path, facts: Mapping[str, str], key: str) -> dict[str, str]:
    """Return a JSON mapping from tensor names to strings."""
    expected = "a JSON object of texts by SHA-256"
    try:
        data = parse_json(_fact(path, facts, key))
    except JsonError as error:
        raise UserError(f"{path}: metadata.{key}", expected=expected, found=str(error), fix=_AGAIN) from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: metadata.{key}", expected=expected, found="another type", fix=_AGAIN)
    for name, value in data.items():
        if not re.fullmatch(r"[0-9a-f]{64}", name) or not isinstance(value, str):
            found = f"'{shorten(name)}'" if isinstance(value, str) else f"a value of another type at {name[:12]}"
            raise UserError(f"{path}: metadata.{key}", expected=expected, found=found, fix=_AGAIN)
    return data


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Return the byte range [first, last) of each tensor, from a header that `check_safetensors` accepted."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    places = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: (8 + size + begin, 8 + size + end) for name, (begin, end) in places.items()}

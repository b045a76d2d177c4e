"""Identity of an image file: checked before anything is drawn or replaced.

An image is decided by its engine, prompt, seed, decoding law, sampling and pacing, all of which its PNG carries. The
images beside it, the version of the package and its place in a request do not count.

Knows provenance and PNG files. Does not know engines or requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from coolsd_rt.arrays import Pixels
from coolsd_rt.errors import UserError
from coolsd_rt.files import JsonError, parse_json
from coolsd_rt.store.hashing import sha256_json
from coolsd_rt.store.outputs import is_taken
from coolsd_rt.workflows.png import CHUNK, read_pixels, text_chunks

PIXELS = "pixels"  # key of the provenance: SHA-256 of the RGB bytes
_DIGITS = 12  # of an omega: other machines compute the last bits otherwise


class Standing(StrEnum):
    """What has the name of an image."""

    ABSENT = "absent"  # nothing
    SAME = "same"  # that image, whole
    DAMAGED = "damaged"  # a file that says it is that image, and cannot be decoded
    OTHER = "other"  # anything else


@dataclass(frozen=True)
class Identity:
    """All that decides an image, as JSON data. Two images with equal identities are one."""

    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return sha256_json(self.facts)

    @staticmethod
    def of(provenance: Mapping[str, Any]) -> Identity | None:
        """The identity of the image that a provenance describes; None if it describes none."""
        try:
            law, spec = provenance["law"], provenance["spec"]
            facts = {
                "engine": provenance["engine"]["fingerprint"],
                "prompt": provenance["prompt"],
                "seed": provenance["seed"],
                "condition": provenance.get("condition"),
                "sampling": dict(spec["sampling"]),
                "law": {"plain": True} if law["plain"] else _speculation(law, spec),
            }
            sha256_json(facts)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        return Identity(facts)


def _speculation(law: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """What plain decoding has nothing of."""
    return {
        **{key: law[key] for key in ("plain", "draft", "draft_length", "rule", "resampler")},
        "omegas": [float(f"{omega:.{_DIGITS}g}") for omega in law["omegas"]],
        "acceptance": dict(spec["acceptance"]),
        "pacing": {"kind": "manual", **spec["pacing"]},  # the only kind, before it had a name
    }


def sha256_pixels(pixels: Pixels) -> str:
    """What a provenance says of its own pixels, so that a file that was edited is not taken for the image."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def standing(path: Path, identity: Identity) -> Standing:
    """What `path` is to the image of this identity. Reads the file to its end; never raises for what is in it."""
    if not is_taken(path):
        return Standing.ABSENT
    said = said_by(path)
    if Identity.of(said) != identity:
        return Standing.OTHER
    try:
        pixels = read_pixels(path)
    except UserError:
        return Standing.DAMAGED
    return Standing.SAME if said.get(PIXELS) in (None, sha256_pixels(pixels)) else Standing.OTHER


def said_by(path: Path) -> dict[str, Any]:
    """The provenance in a PNG, whole or cut after it; empty if there is none that can be read."""
    try:
        said = parse_json(text_chunks(path).get(CHUNK, ""))
    except JsonError:
        return {}
    return said if isinstance(said, dict) else {}

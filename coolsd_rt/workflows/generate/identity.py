"""Identity of an image file: whether a file holds the image that a request would draw.

An image is determined by its engine, prompt, seed, decoding law, sampling and pacing; its PNG carries all of them. The
other images of the request, the package version and the image's index do not affect it.

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

PIXELS = "pixels"  # key in the provenance for the SHA-256 of the RGB bytes
_DIGITS = 12  # of an omega: its last bits differ between machines


class Standing(StrEnum):
    """What the file system holds under the name of an image."""

    ABSENT = "absent"  # no file
    SAME = "same"  # the same image, complete
    DAMAGED = "damaged"  # the file claims to be that image but cannot be decoded
    OTHER = "other"  # anything else


@dataclass(frozen=True)
class Identity:
    """All values that determine an image, as JSON data. Two images with equal identities are the same image."""

    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the facts."""
        return sha256_json(self.facts)

    @staticmethod
    def of(provenance: Mapping[str, Any]) -> Identity | None:
        """Return the identity of the image that `provenance` describes; None if it describes no image."""
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
    """Return the values that only speculative decoding has."""
    return {
        **{key: law[key] for key in ("plain", "draft", "draft_length", "rule", "resampler")},
        **({"tree": law["tree"]} if "tree" in law else {}),
        "omegas": [float(f"{omega:.{_DIGITS}g}") for omega in law["omegas"]],
        "acceptance": dict(spec["acceptance"]),
        "pacing": {"kind": "manual", **spec["pacing"]},  # the only kind, before it had a name
    }


def sha256_pixels(pixels: Pixels) -> str:
    """Return the digest that a provenance records of the pixels, so that an edited file does not count as the image."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def standing(path: Path, identity: Identity) -> Standing:
    """Compare the file `path` with an image's identity. Reads the whole file; never raises because of its content."""
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
    """Return the provenance in a PNG, even if the file is cut off after it; empty if no provenance can be read."""
    try:
        said = parse_json(text_chunks(path).get(CHUNK, ""))
    except JsonError:
        return {}
    return said if isinstance(said, dict) else {}

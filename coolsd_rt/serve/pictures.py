"""Pixels to the bytes of an image file, and these to the text of an answer.

Knows image formats. Does not know requests.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from coolsd_rt.workflows.png import png_bytes

ImageFormat = Literal["png", "jpeg", "webp"]


def encode_image(
    pixels: bytes, side: int, kind: ImageFormat, quality: int, provenance: Mapping[str, Any] | None = None
) -> str:
    """Return an image file in base64. pixels: RGB uint8. quality: of jpeg and webp. provenance: for a PNG's text."""
    from PIL import Image

    array = np.frombuffer(pixels, np.uint8).reshape(-1, side, 3)
    if kind == "png":
        data = png_bytes(array, provenance)
    else:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, kind.upper(), quality=quality)
        data = buffer.getvalue()
    return base64.b64encode(data).decode("ascii")

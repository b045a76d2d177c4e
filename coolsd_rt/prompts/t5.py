"""Converts captions to features: the `t5` condition of LlamaGen t2i.

A caption is cleaned. The features of its n tokens occupy the last n of the W prefix positions; positions before them
are zeros that the target does not see. (The published pipeline pads on the right, rotates by n, and multiplies by the
mask, which gives the same rows.) The unconditional row is the target's learned embedding, including its padding, and
starts where the caption's row starts: LlamaGen gives it the mask of the conditional prompt.

Knows the sources of features: a file, an encoder. Does not know networks, and needs no torch for features from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from coolsd_rt.arrays import Floats32
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import open_plain
from coolsd_rt.prompts.base import SAMPLES, Encoded, quoted, some_text
from coolsd_rt.prompts.cleaning import clean
from coolsd_rt.prompts.features import FeatureFile
from coolsd_rt.shown import shorten

_REBUILD = "build the engine again"
UNCONDITIONAL_FILE = "unconditional.npy"  # in an engine's folder: float32 [W, E], the target's `uncond_embedding`


class TextEncoder(Protocol):
    """A network that converts a cleaned caption to features."""

    @property
    def name(self) -> str:
        """Hub id with its revision, or a folder."""
        ...

    def features(self, caption: str) -> Floats32:
        """Return float32 [n, E] of the caption's n tokens.

        Raises UserError: too many tokens, or the encoder is not available.
        """
        ...

    def release(self) -> None:
        """Free its memory; the next call loads it again."""
        ...


def load_unconditional(path: Path) -> Floats32:
    """Return the target's learned rows, float32 [W, E]. Raises CoolsdError if the file is not such a table."""
    open_plain(path, "a table [W, E]", fix=_REBUILD, error=CoolsdError).close()
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a wrong header allocates nothing
    except (OSError, ValueError, EOFError, OverflowError) as error:
        found = shorten(str(error), 120)
        raise CoolsdError(str(path), expected="a table [W, E]", found=found, fix=_REBUILD) from error
    if table.ndim != 2 or table.dtype.kind != "f" or not np.isfinite(table).all():
        found = f"{table.dtype} {list(table.shape)}"
        raise CoolsdError(str(path), expected="finite numbers [W, E]", found=found, fix=_REBUILD)
    return np.array(table, np.float32, order="C")


@dataclass(frozen=True)
class T5Conditioner:
    """A `Conditioner` for captions. Captions that `file` lacks are encoded by `encoder`.

    learned: float32 [W, E], the target's unconditional rows.
    """

    learned: Floats32
    file: FeatureFile | None = None
    encoder: TextEncoder | None = None

    def __post_init__(self) -> None:
        file = self.file
        if file is None:
            return
        if (file.dim, file.length) != (self.features_dim, self.prefix):
            expected = f"features of width {self.features_dim} and at most {self.prefix} tokens, as the target reads"
            raise UserError(str(file.path), expected=expected, found=f"width {file.dim}, {file.length} tokens")

    @property
    def prefix(self) -> int:
        """The prefix length W."""
        return len(self.learned)

    @property
    def features_dim(self) -> int:
        """The feature width E."""
        return int(self.learned.shape[1])

    @property
    def padded(self) -> bool:
        """True: captions have different numbers of tokens."""
        return True

    def encode(self, prompt: str) -> Encoded:
        """Return a caption's features. Raises UserError: empty after cleaning, too long, or no source of features."""
        caption = clean(some_text(prompt))
        if not caption:
            found = f"none left of {quoted(prompt)} after cleaning"
            raise UserError("prompt", expected="words that the text encoder knows", found=found, fix="say it in words")
        rows = None if self.file is None else self.file.get(caption)
        if rows is None and self.encoder is not None:
            rows = self.encoder.features(caption)
        if rows is None:
            raise self._nowhere(caption)
        if rows.shape[1] != self.features_dim or not 1 <= len(rows) <= self.prefix:
            expected = f"features of width {self.features_dim}, at most {self.prefix} rows, as the target reads"
            fix = "name the encoder the target was trained with"
            raise UserError("the text encoder", expected=expected, found=str(list(rows.shape)), fix=fix)
        return Encoded(start=self.prefix - len(rows), features=rows)

    def origin(self, prompt: str) -> dict[str, str | None]:
        """Return the source of a caption's features as JSON data, without computing them.

        Equal sources give equal features.
        """
        if self.file is not None and (checksum := self.file.checksum(clean(some_text(prompt)))) is not None:
            return {"features": checksum}
        name = None if self.encoder is None else self.encoder.name
        return {"encoder": Path(name).name if name is not None and Path(name).is_absolute() else name}

    def _nowhere(self, caption: str) -> UserError:
        where = f"not in {self.file.path}" if self.file is not None else "no features file and no text encoder"
        fix = "compute it: coolsd-rt precompute SPEC -p PROMPT, or name an encoder's folder"
        return UserError("prompt", expected=f"the features of {quoted(caption)}", found=where, fix=fix)

    def unconditional(self, encoded: Encoded) -> Encoded:
        """Return the learned rows, starting where the caption does.

        Rows before the start are for heads that read padding.
        """
        return Encoded(start=encoded.start, features=self.learned)

    def samples(self) -> list[str]:
        """Return the captions of the file, else general samples."""
        return sorted(self.file.captions.values()) if self.file is not None and self.encoder is None else list(SAMPLES)

    def release(self) -> None:
        """Free the text encoder's memory."""
        if self.encoder is not None:
            self.encoder.release()

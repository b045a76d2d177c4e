"""Stores images, or texts, as code ids in files: encoded or drawn once, continued after an interruption.

A folder holds shards of at most `SHARD` images, each a complete safetensors file. The folder's name is a hash of
everything that its codes depend on, so that codes of another target, sampling or image folder are never mixed in. Knows
files and ids. Does not know how images are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import read_bytes, why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.store.hashing import sha256_json
from coolsd_rt.train.draw_texts import PAD

SHARD = 16
TEXTS = 128  # texts of a shard, which are drawn at once: more rows cost a target's step little
Make = Callable[[range], Tensor]
"""Function from image numbers to their codes, int64 [n, N]."""


@dataclass(frozen=True)
class CodeStore:
    """`count` images of `tokens` tokens each, in shards.

    identity: JSON data that the codes depend on. ids: every code must be below it; None disables the check. padded:
    texts: `PAD` stands behind the last token of each. size: images of a shard.
    """

    root: Path
    kind: str
    identity: Mapping[str, Any]
    count: int
    tokens: int
    ids: int | None = None
    padded: bool = False
    size: int = SHARD

    @property
    def folder(self) -> Path:
        """Folder of the shards."""
        return self.root / f"{self.kind}-{sha256_json([dict(self.identity), self.tokens])[:16]}"

    @property
    def shards(self) -> list[range]:
        """Image numbers of each shard."""
        return [range(first, min(first + self.size, self.count)) for first in range(0, self.count, self.size)]

    def fill(
        self,
        make: Make,
        on_images: Callable[[int, int], None] = lambda done, of: None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Make every shard that does not exist. part: (k, n) makes every n-th shard from the k-th on.

        Raises CoolsdError if the disk is full or the folder is not writable, and any error of `make`.
        """
        for shard in self.shards[part[0] :: part[1]]:
            path = self._path(shard)
            if why_unusable(path) == "nothing":
                data = save({"codes": make(shard).to(torch.int32).contiguous()})
                with disk_errors(self.folder, len(data)):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, data)
            on_images(shard.stop, self.count)

    def load(self) -> Tensor:
        """Return the codes of all images, int64 [count, tokens].

        Raises UserError or CoolsdError for an invalid shard.
        """
        parts = [self._read(shard) for shard in self.shards]
        return torch.cat(parts) if parts else torch.zeros(0, self.tokens, dtype=torch.int64)

    def _read(self, shard: range) -> Tensor:
        path, fix = self._path(shard), "remove it: it is made again"
        try:
            codes = load(read_bytes(path, "a shard of codes", RESULT_BYTES, fix=fix))["codes"]
        except CoolsdError:
            raise
        except (KeyError, ValueError) as error:
            raise UserError(str(path), expected="a shard of codes", found=str(error), fix=fix) from error
        except Exception as error:  # SafetensorError derives directly from Exception
            raise UserError(str(path), expected="whole safetensors", found=str(error), fix=fix) from error
        if codes.dtype != torch.int32:
            raise CoolsdError(str(path), expected="codes int32", found=str(codes.dtype), fix=fix)
        if codes.shape != (len(shard), self.tokens):
            found, expected = str(list(codes.shape)), f"codes [{len(shard)}, {self.tokens}]"
            raise CoolsdError(str(path), expected=expected, found=found, fix=fix)
        self._check(codes, path, fix)
        return codes.long()

    def _check(self, codes: Tensor, path: Path, fix: str) -> None:
        """Raise CoolsdError for codes out of range, or for texts with gaps."""
        real = codes != PAD if self.padded else torch.ones_like(codes, dtype=torch.bool)
        if not bool((real[:, 1:] <= real[:, :-1]).all() and real[:, :1].all()):
            raise CoolsdError(str(path), expected="texts of at least one token", found="gaps in them", fix=fix)
        codes = codes[real]
        if self.ids is not None and codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < self.ids):
            found = f"{int(codes.min())} to {int(codes.max())}"
            raise CoolsdError(str(path), expected=f"codes from 0 to {self.ids - 1}", found=found, fix=fix)

    def _path(self, shard: range) -> Path:
        # The name includes the length, so that with more images the last shard becomes another file.
        return self.folder / f"{shard.start:08d}-{len(shard)}.safetensors"

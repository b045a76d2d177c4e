"""Images as code ids, kept in files: encoded or drawn once, and gone on with after a kill.

A folder holds shards of at most `SHARD` images, each a whole safetensors file. Its name is a hash of everything that
its codes depend on, so that another target, sampling or folder of images never meets these. Knows files and ids. Does
not know how images are made.
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

SHARD = 16
Make = Callable[[range], Tensor]
"""Images with these numbers -> codes int64 [n, N]."""


@dataclass(frozen=True)
class CodeStore:
    """`count` images of `tokens` tokens each, in shards. identity: JSON data on which the codes depend.

    ids: codes are below it; None is not checked.
    """

    root: Path
    kind: str
    identity: Mapping[str, Any]
    count: int
    tokens: int
    ids: int | None = None

    @property
    def folder(self) -> Path:
        return self.root / f"{self.kind}-{sha256_json([dict(self.identity), self.tokens])[:16]}"

    @property
    def shards(self) -> list[range]:
        return [range(first, min(first + SHARD, self.count)) for first in range(0, self.count, SHARD)]

    def fill(
        self,
        make: Make,
        on_images: Callable[[int, int], None] = lambda done, of: None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Make every shard that is not there. part: (k, n) makes each n-th shard from the k-th on.

        Raises CoolsdError: no space, or a folder that cannot be written; and whatever `make` raises.
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
        """Codes of all images, int64 [count, tokens]. Raises UserError, CoolsdError: a shard that is not whole."""
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
        except Exception as error:  # SafetensorError derives from Exception alone
            raise UserError(str(path), expected="whole safetensors", found=str(error), fix=fix) from error
        if codes.dtype != torch.int32:
            raise CoolsdError(str(path), expected="codes int32", found=str(codes.dtype), fix=fix)
        if codes.shape != (len(shard), self.tokens):
            found, expected = str(list(codes.shape)), f"codes [{len(shard)}, {self.tokens}]"
            raise CoolsdError(str(path), expected=expected, found=found, fix=fix)
        if self.ids is not None and codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < self.ids):
            found = f"{int(codes.min())} to {int(codes.max())}"
            raise CoolsdError(str(path), expected=f"codes from 0 to {self.ids - 1}", found=found, fix=fix)
        return codes.long()

    def _path(self, shard: range) -> Path:
        # Its length is in its name: when there are to be more images, the last shard is another file.
        return self.folder / f"{shard.start:08d}-{len(shard)}.safetensors"

"""A T5 encoder and its tokenizer, which compute caption features on demand.

Knows the location of the folder, local or in the hub's cache. Does not know cleaning, padding or targets;
`pretrained.t5` checks that a folder is complete. torch and transformers are imported with the first caption: an engine
that finds its captions in a file needs neither. Weights are safetensors, never pickles.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coolsd_rt.arrays import Floats32
from coolsd_rt.cores import limit_torch
from coolsd_rt.errors import UserError
from coolsd_rt.pretrained.hub import quiet_hub
from coolsd_rt.pretrained.load import CONFIG_FILE, missing_files
from coolsd_rt.pretrained.t5 import load_t5
from coolsd_rt.pretrained.tokenizer import TOKENIZER_FILE, encode
from coolsd_rt.prompts.base import need, too_long
from coolsd_rt.shown import shorten

Precision = Literal["bf16", "fp32"]
_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
_FILES = ("*.json", "model*.safetensors")
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)
_LATER = "or compute the features on a machine with the encoder: coolsd-rt precompute"


@dataclass
class T5Encoder:
    """A `t5.TextEncoder`.

    Attributes:
        source: a folder in the format of transformers, or a hub id with the commit in `revision`.
        length: the most tokens that a caption may have.
        device: a torch device name.
    """

    source: Path | str
    length: int
    precision: Precision = "bf16"
    revision: str | None = None
    device: str = "cpu"
    _loaded: tuple[Any, Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Hub id with its revision, or the folder."""
        return f"{self.source}@{self.revision}" if self.revision else str(self.source)

    def features(self, caption: str) -> Floats32:
        """Return float32 [n, E] of a cleaned caption's n tokens, including the end token.

        Captions are encoded one at a time and without padding: masked positions contribute nothing, and the features of
        a caption do not depend on other captions. Raises UserError for more than `length` tokens; MissingExtra or
        UserError if the encoder is not available.
        """
        need("text", "torch", "transformers", "tokenizers", "safetensors")
        import torch

        tokenizer, model = self._load()
        ids = encode(tokenizer, caption).ids
        if len(ids) > self.length:
            raise too_long(caption, len(ids), self.length)
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids], device=self.device)).last_hidden_state[0]
        values: Floats32 = out.float().cpu().numpy()
        if not np.isfinite(values).all():
            fix = "set condition.precision: fp32 or use another file of weights"
            raise UserError(self.name, expected="finite features", found="NaN or infinite ones", fix=fix)
        return values

    def release(self) -> None:
        """Free the loaded network and tokenizer."""
        self._loaded = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch

            limit_torch()
            fix = f"fetch or save the encoder's folder again, {_LATER}"
            tokenizer, model = load_t5(self._folder(), getattr(torch, _DTYPES[self.precision]), fix=fix)
            self._loaded = tokenizer, model.to(self.device)
        return self._loaded

    def _folder(self) -> Path:
        """Return the folder of encoder and tokenizer; for a hub id, from the cache or downloaded at that commit."""
        if isinstance(self.source, Path):
            if not os.path.exists(self.source / CONFIG_FILE):
                found = f"a folder without {CONFIG_FILE}" if os.path.isdir(self.source) else "no such folder"
                fix = f"put encoder and tokenizer there, {_LATER}"
                raise UserError(str(self.source), expected="a T5 encoder's folder", found=found, fix=fix)
            return self.source
        from huggingface_hub import snapshot_download

        with contextlib.suppress(*_BROKEN):
            there = Path(snapshot_download(self.source, revision=self.revision, local_files_only=True))
            if not missing_files(there, CONFIG_FILE, TOKENIZER_FILE):
                return there
        try:
            with quiet_hub():
                return Path(snapshot_download(self.source, revision=self.revision, allow_patterns=list(_FILES)))
        except _BROKEN as error:
            expected = "a T5 encoder in safetensors with its tokenizer"
            found = shorten(" ".join(str(error).split()), 200)
            raise UserError(
                self.name, expected=expected, found=found, fix=f"name a local folder of it, {_LATER}"
            ) from error

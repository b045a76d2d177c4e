"""A T5 encoder and its tokenizer, through transformers: caption features when they are needed.

Knows transformers' loaders. Does not know cleaning, padding or targets. torch and transformers are imported with the
first caption: an engine that finds its captions in a file needs neither. Weights are safetensors, never pickles.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coolsd_rt.cores import limit_torch
from coolsd_rt.errors import UserError
from coolsd_rt.models.conditions.base import Floats, need, too_long
from coolsd_rt.models.hub import quiet_hub

Precision = Literal["bf16", "fp32"]
_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
_FILES = ("*.json", "*.safetensors", "spiece.model")
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)
_LATER = "or compute features where the encoder is: python -m coolsd_rt.workflows.precompute"


@dataclass
class T5Encoder:
    """source: a folder as transformers saves them, or a hub id, with the commit in `revision`. length: most tokens.

    device: as torch names it. Is a `t5.TextEncoder`.
    """

    source: Path | str
    length: int
    precision: Precision = "bf16"
    revision: str | None = None
    device: str = "cpu"
    _loaded: tuple[Any, Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return f"{self.source}@{self.revision}" if self.revision else str(self.source)

    def features(self, caption: str) -> Floats:
        """float32 [n, E] of a cleaned caption's n tokens, the end mark among them.

        One caption at a time and without padding: what the encoder masks adds nothing, and a caption's features do not
        depend on those beside it. Raises UserError: more than `length` tokens. MissingExtra, UserError: no encoder.
        """
        need("text", "torch", "transformers")
        import torch

        tokenizer, model = self._load()
        ids = tokenizer(caption, add_special_tokens=True).input_ids
        if len(ids) > self.length:
            raise too_long(caption, len(ids), self.length)
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids], device=self.device)).last_hidden_state[0]
        values: Floats = out.float().cpu().numpy()
        if not np.isfinite(values).all():
            fix = "set condition.precision: fp32 or use another file of weights"
            raise UserError(self.name, expected="finite features", found="NaN or infinite ones", fix=fix)
        return values

    def release(self) -> None:
        self._loaded = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoTokenizer, T5EncoderModel
            from transformers.utils import logging

            limit_torch()
            quiet: Any = logging  # its functions carry no types
            quiet.disable_progress_bar()
            quiet.set_verbosity_error()
            folder = self._folder()
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                model: Any = T5EncoderModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, _DTYPES[self.precision])
                )
            except _BROKEN as error:
                raise self._unusable(error) from error
            self._loaded = tokenizer, model.eval().to(self.device)
        return self._loaded

    def _folder(self) -> Path:
        """Where encoder and tokenizer are; from a hub, what the machine has of that commit or can fetch."""
        if isinstance(self.source, Path):
            if not (self.source / "config.json").is_file():
                found = "a folder without config.json" if self.source.is_dir() else "no such folder"
                fix = f"put encoder and tokenizer there, {_LATER}"
                raise UserError(str(self.source), expected="a T5 encoder's folder", found=found, fix=fix)
            return self.source
        from huggingface_hub import snapshot_download

        with contextlib.suppress(*_BROKEN):
            there = Path(snapshot_download(self.source, revision=self.revision, local_files_only=True))
            if _whole(there):
                return there
        try:
            with quiet_hub():
                return Path(snapshot_download(self.source, revision=self.revision, allow_patterns=list(_FILES)))
        except _BROKEN as error:
            raise self._unusable(error) from error

    def _unusable(self, error: BaseException) -> UserError:
        expected = "a T5 encoder in safetensors with its tokenizer"
        found = " ".join(str(error).split())[:200]
        return UserError(self.name, expected=expected, found=found, fix=f"name a local folder of it, {_LATER}")


def _whole(folder: Path) -> bool:
    """Whether a download was finished: every file of weights that the folder speaks of is there."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return all((folder / name).is_file() for name in ("config.json", "tokenizer_config.json", *names))

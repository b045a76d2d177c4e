"""The CLIP score: how near a picture is to its prompt. Cosine of CLIP's embeddings times 100, as in torchmetrics.

A mean below 0, which trained weights do not give, is shown as it is.

Knows CLIP models in a local folder. Does not know where pictures come from. Nothing is downloaded and nothing is
unpickled. Needs the extra clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPProcessor
from transformers.utils import logging

from coolsd_rt.errors import UserError
from coolsd_rt.measure.quality import CLIP, Figure, Kind, Pictures
from coolsd_rt.store.hashing import sha256_file, sha256_json

_BATCH = 16


class ClipScore:
    """The measure. Raises UserError: the folder is not that of a CLIP model."""

    plain_pictures = False

    def __init__(self, folder: Path) -> None:
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
            self.processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            expected = "a CLIP model in safetensors, with its tokenizer and preprocessor_config.json"
            raise UserError(str(folder), expected=expected, found=" ".join(str(e).split())[:200]) from e
        files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".txt"))
        self.digest = sha256_json([(path.name, sha256_file(path)) for path in files])

    @property
    def kind(self) -> Kind:
        return CLIP

    def identity(self) -> Any:
        return {"weights": self.digest}

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Nothing: pictures are resized, long prompts cut, as CLIP's own processor does."""

    def refer(self, pictures: Pictures) -> None:
        """Nothing: the references are the prompts."""

    @torch.no_grad()
    def scores(self, pictures: Pictures | Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> NDArray[np.float64]:
        """100 times the cosine of each pair, [N]. pictures: RGB, as one array or one each, of any sizes."""
        out = []
        for start in range(0, len(prompts), _BATCH):
            batch = slice(start, start + _BATCH)
            inputs = self.processor(
                text=list(prompts[batch]), images=list(pictures[batch]), return_tensors="pt", padding=True,
                truncation=True, max_length=self.model.config.text_config.max_position_embeddings,
            )  # fmt: skip
            found = self.model(**inputs)  # both embeddings have unit length
            out.append(100 * (found.image_embeds * found.text_embeds).sum(-1))
        found_scores: NDArray[np.float64] = torch.cat(out).double().numpy()
        return found_scores

    def measure(self, pictures: Pictures, prompts: Sequence[str]) -> Figure:
        scores = self.scores(pictures, prompts)
        error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else float("nan")
        return Figure.around(float(scores.mean()), error, "95%, over the pictures")

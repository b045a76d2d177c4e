"""The prompts of a training as rows that the target reads, and the split into training and held-out prompts.

Knows conditions and one shuffle. Does not know images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from coolsd_rt.errors import UserError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.families import model_dims
from coolsd_rt.prompts import (
    Conditioner,
    Encoded,
    FeatureFile,
    Rows,
    T5Conditioner,
    check_fit,
    conditioner_files,
    load_conditioner,
    stack,
    text_encoder,
)
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.spec.condition import T5Condition


def conditioner_of(loaded: LoadedSpec, target: Decoder) -> Conditioner:
    """Return the conditioner of a spec, before anything is built.

    Raises UserError and MissingExtra as the kinds of `prompts` do, and CoolsdError if its prefixes do not fit the
    target.
    """
    condition, files = loaded.spec.condition, loaded.files
    made: Conditioner
    if isinstance(condition, T5Condition):
        learned = target.get_parameter("cls_embedding.uncond_embedding").detach().float().cpu().numpy()
        features = files.get("condition.features")
        file = None if features is None else FeatureFile.open(features)
        made = T5Conditioner(np.ascontiguousarray(learned), file, text_encoder(condition, loaded.folder))
    else:
        names = conditioner_files(condition)
        made = load_conditioner(condition, lambda name: files[names[name]], spec_folder=loaded.folder)
    check_fit(made, model_dims(target.cfg, None))
    return made


class Prompts:
    """Distinct prompts, each encoded once. `rows` returns any of them in any order."""

    def __init__(self, texts: Sequence[str], conditioner: Conditioner, target: Decoder, guided: bool) -> None:
        self.texts = list(dict.fromkeys(texts))
        self._conditioner, self._guided = conditioner, guided
        try:
            self._encoded: list[Encoded] = [conditioner.encode(text) for text in self.texts]
        finally:
            conditioner.release()
        self._check(target)

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, index: Sequence[int]) -> Rows:
        """Return the prefixes of the prompts with these numbers, followed under CFG by as many unconditional ones."""
        return stack(self._conditioner, [self._encoded[i] for i in index], self._guided)

    def _check(self, target: Decoder) -> None:
        known, _ = target.cfg.condition_size
        most = max((max(e.ids, default=0) for e in self._encoded), default=0)
        if known and most >= known:
            fix = "name the condition that the target was trained with"
            raise UserError("the condition", expected=f"ids under the target's {known}", found=str(most), fix=fix)


def split_prompts(
    texts: Sequence[str], held: int, seed: int, measured: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Split distinct prompts into training and held-out ones: at most `held`, at most a tenth, and at least one.

    The shuffle depends on the seed only. measured: prompts to measure on instead, in which case all `texts` are trained
    on. Raises UserError for fewer than two prompts.
    """
    distinct = list(dict.fromkeys(texts))
    if measured:
        return distinct, list(dict.fromkeys(measured))
    if len(distinct) < 2:
        fix = "give more with --prompts FILE, one per line"
        raise UserError("prompts", expected="at least 2, one of them held out", found=str(len(distinct)), fix=fix)
    out = max(1, min(held, len(distinct) // 10))
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)).tolist()
    apart = set(order[:out])
    train = [text for i, text in enumerate(distinct) if i not in apart]
    return train, [distinct[i] for i in order[:out]]

"""Computes caption features ahead of time, for engines that run on machines without the text encoder.

    1. Clean the captions, and drop those that the file already has.
    2. Encode the others with the spec's T5 encoder, one at a time.
    3. Write all of them with checksums, atomically. The same captions, encoder and torch on the same machine give the
       same bytes.

Knows specs and the feature file. Does not know engines. Needs the extra `text` (torch, transformers).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from coolsd_rt.arrays import Floats32
from coolsd_rt.errors import UserError
from coolsd_rt.files import check_target, why_unusable
from coolsd_rt.prompts import FeatureFile, text_encoder
from coolsd_rt.prompts.base import need, quoted, some_text
from coolsd_rt.prompts.cleaning import clean
from coolsd_rt.prompts.features import key_of, metadata
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.spec.condition import T5Condition
from coolsd_rt.store.atomic import check_folder, disk_errors, write_atomic
from coolsd_rt.store.weights import TensorInfo


def precompute(
    loaded: LoadedSpec,
    prompts: Sequence[str],
    out: Path,
    *,
    encoder: Path | None = None,
    device: str = "cpu",
    on_caption: Callable[[str], None] = lambda caption: None,
) -> FeatureFile:
    """Write the features of `prompts` to `out`, together with those that it already has.

    encoder: a folder to use instead of the spec's encoder. device: a torch device name.

    Raises:
        UserError: the spec has no T5 condition or no encoder; a prompt is empty or too long; `out` holds something
            else, or features of another encoder.
        MissingExtra: torch or transformers is not installed.
        CoolsdError: the disk is full.
    """
    condition = loaded.spec.condition
    if not isinstance(condition, T5Condition):
        raise loaded.error("condition.kind", "t5, which reads captions through an encoder", condition.kind)
    if not prompts:
        raise UserError("prompts", expected="at least one", found="none", fix="give -p TEXT or --prompts FILE")
    source = text_encoder(condition, loaded.folder, encoder)
    if source is None:
        fix = "set condition.encoder and condition.revision, or give --text-encoder FOLDER"
        raise loaded.error("condition", "a text encoder", "features only", fix)
    need("text", "torch", "transformers", "safetensors")
    check_folder(out.parent)
    check_target(out)
    source.device = device
    old = _there(out, source.name, condition.length)
    captions = list(dict.fromkeys(_cleaned(prompt) for prompt in prompts))
    found = {} if old is None else {caption: old.rows(caption) for caption in old.captions.values()}
    for caption in captions:
        if caption not in found:
            found[caption] = source.features(caption)
            on_caption(caption)
    latest = _there(out, source.name, condition.length)  # another run may have added captions meanwhile
    added = {} if latest is None else {caption: latest.rows(caption) for caption in latest.captions.values()}
    if latest is None or not found.keys() <= added.keys():
        data = _packed(added | found, source.name, condition.length, condition.precision)
        with disk_errors(out.parent, len(data)):
            write_atomic(out, data, replace=latest is not None)
    return FeatureFile.open(out)


def _cleaned(prompt: str) -> str:
    caption = clean(some_text(prompt))
    if not caption:
        raise UserError("prompt", expected="words that the text encoder knows", found=f"none in {quoted(prompt)}")
    return caption


def _there(out: Path, encoder: str, length: int) -> FeatureFile | None:
    """Return the existing file. Raises UserError if features cannot be added to it."""
    if why_unusable(out) == "nothing":
        return None
    old = FeatureFile.open(out)
    if (old.encoder, old.length) != (encoder, length):
        found = f"those of {old.encoder}, {old.length} tokens"
        fix = "give another --out"
        raise UserError(str(out), expected=f"features of {encoder}, {length} tokens", found=found, fix=fix)
    return old


def _packed(found: dict[str, Floats32], encoder: str, length: int, precision: str) -> bytes:
    """Return the content of the file: the same bytes for the same features, whatever order they were computed in.

    Features keep the encoder's dtype: nothing is lost, and bf16 takes half the space. The header is written here
    because the order of metadata in safetensors' writer varies from run to run.
    """
    import torch

    from coolsd_rt.checkpoints.writer import NAMES, header_bytes

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    infos, rows = [], []
    for key, caption in sorted((key_of(caption), caption) for caption in found):
        value = torch.from_numpy(found[caption].copy()).to(dtype)
        infos.append((key, TensorInfo(NAMES[dtype], tuple(value.shape))))
        rows.append(value.view(torch.uint8).numpy().tobytes())
    sums = {key: hashlib.sha256(data).hexdigest() for (key, _), data in zip(infos, rows, strict=True)}
    facts = metadata(encoder, length, {key_of(caption): caption for caption in found}, sums)
    return header_bytes(infos, facts) + b"".join(rows)


if __name__ == "__main__":  # a former command; without this it would do nothing and exit with code 0
    sys.stderr.write("error: python -m coolsd_rt.workflows.precompute: it is a verb now: coolsd-rt precompute\n")
    sys.exit(2)

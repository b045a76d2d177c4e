"""The training images and the held-out images as codes with their prompts, stored once and indexed by number.

Held-out images are always drawn by the target, with prompts that training never sees unless they were named explicitly.
Their codes are distributed as P, which the accept length requires. Knows stores, prompts and batches. Does not know
drafts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coolsd_rt import limits
from coolsd_rt.checkpoints.load import load_tokenizer
from coolsd_rt.errors import UserError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.prompts import Conditioner, Rows
from coolsd_rt.prompts.texts import TextConditioner
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.shown import shorten
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.train.codes import SHARD, TEXTS, CodeStore, Make
from coolsd_rt.train.config import TOKENS, TrainCallbacks, TrainConfig
from coolsd_rt.train.draw import draw_codes
from coolsd_rt.train.draw_texts import draw_texts, lowered, text_lengths
from coolsd_rt.train.images import CaptionedImage, digest, load_pixels, read_folder
from coolsd_rt.train.process import Process
from coolsd_rt.train.prompts import Prompts, conditioner_of, split_prompts
from coolsd_rt.train.students import Example

OWN = "self:"
HELD_SEEDS = 1 << 48  # offset of the held-out seeds, so that they share no random numbers with training images


@dataclass(frozen=True)
class TrainingImages:
    """codes int64 [n, N], and the number of each image's prompt. texts: `PAD` stands behind the last token of each."""

    prompts: Prompts
    codes: Tensor
    prompt: tuple[int, ...]
    padded: bool
    texts: bool = False

    def __len__(self) -> int:
        return len(self.prompt)

    def example(self, index: Sequence[int], scale: Tensor | None, device: torch.device) -> Example:
        """Return the images with these numbers as a batch. scale: CFG scale [M, N], or None."""
        rows = self.prompts.rows([self.prompt[i] for i in index])
        if self.texts:
            return _texts(rows, self.codes[list(index)], scale, device, tuple(index))
        start = torch.from_numpy(rows.start).to(device) if self.padded else None
        codes = self.codes[list(index)].to(device)
        by = None if scale is None else scale.to(device)
        return Example(torch.from_numpy(rows.text).to(device), start, codes, by, tuple(index))


def _texts(rows: Rows, codes: Tensor, scale: Tensor | None, device: torch.device, index: tuple[int, ...]) -> Example:
    """Return texts as a batch, without the positions and tokens that none of them has."""
    first, lengths = int(rows.start.min()), text_lengths(codes)
    longest = int(lengths.max())
    return Example(
        torch.from_numpy(rows.text[:, first:]).to(device),
        torch.from_numpy(rows.start - first).to(device),
        codes[:, :longest].clamp(min=0).to(device),
        None if scale is None else scale[:, :longest].to(device),
        index,
        lengths.to(device),
    )


@dataclass(frozen=True)
class Data:
    """The training images and the held-out images. name: a hash of everything that either depends on.

    most: most tokens of a text; None: images.
    """

    train: TrainingImages
    held: TrainingImages
    name: str
    most: int | None = None


def count_of(data: str) -> int | None:
    """Return N of `self:N`; None for a folder. Raises UserError for any other word after `self:`."""
    if not data.startswith(OWN):
        return None
    number = data.removeprefix(OWN)
    if not re.fullmatch("[0-9]{1,20}", number) or int(number) not in limits.TRAIN_IMAGES:
        raise UserError("--data", expected=f"self:N with N {limits.TRAIN_IMAGES.said}", found=shorten(data))
    return int(number)


def check_data(data: str, prompts: Sequence[str]) -> None:
    """Raise UserError: another word behind `self:`, or prompts beside a folder, whose captions are the prompts."""
    if count_of(data) is None and prompts:
        expected, fix = "none with --data DIR, whose captions are the prompts", "leave it out, or use --data self:N"
        raise UserError("--prompts", expected=expected, found=str(len(prompts)), fix=fix)


def prepare(
    request: TrainConfig, target: Decoder, sampling: Sampling, process: Process, listener: TrainCallbacks
) -> Data:
    """Encode or draw the images that do not exist yet. Raises UserError or CoolsdError for wrong data or prompts."""
    loaded, own = request.loaded, count_of(request.data)
    if own is None and loaded.spec.writes == "text":
        fix = "use --data self:N"
        raise UserError("--data", expected="self:N for a target that writes text", found=request.data, fix=fix)
    found: list[CaptionedImage] = []
    if own is None:
        found = read_folder(Path(request.data))
    conditioner = conditioner_of(loaded, target)
    texts = [p.caption for p in found] or list(request.prompts) or conditioner.samples()
    seen, apart = split_prompts(texts, request.held_out, request.seed, request.measured_prompts)
    trained = set(seen)
    guided = sampling.guided
    known, held = (Prompts(part, conditioner, target, guided) for part in (seen, apart))
    drawn_by = _drawn_by(request)
    padded, bounds = bool(target.cfg.padded), text_bounds(request, target, conditioner)
    if bounds is not None:
        drawn_by |= {"ends": list(bounds.ends)}
    tokens = target.cfg.tokens if bounds is None else bounds.tokens

    def own_images(what: str, prompts: Prompts, count: int, seed: int) -> tuple[TrainingImages, CodeStore]:
        number, by, low = tuple(k % len(prompts) for k in range(count)), target, dict[str, Any]()
        if bounds is not None and request.precision == "bf16" and what != "held-out":
            by, low = lowered(target), {"precision": request.precision}

        def make(shard: range) -> Tensor:
            rows, seeds = prompts.rows([number[k] for k in shard]), [seed + k for k in shard]
            if bounds is not None:
                return draw_texts(by, rows, sampling, seeds, bounds.ends, bounds.tokens).cpu()
            return draw_codes(target, rows, sampling, seeds).cpu()

        store = CodeStore(
            request.folder,
            what,
            drawn_by | low | {"prompts": prompts.texts, "seed": seed},
            count,
            tokens,
            target.cfg.vocab,
            bounds is not None,
            SHARD if bounds is None else TEXTS,
        )
        codes = _filled(store, make, process, listener, f"drawing {what} {'images' if bounds is None else 'texts'}")
        return TrainingImages(prompts, codes, number, padded, bounds is not None), store

    measured, held_store = own_images("held-out", held, request.held_out, HELD_SEEDS + request.seed)
    if own is not None:
        train, store = own_images("self", known, own, request.seed)
    else:
        train, store = _encoded(request, target, [p for p in found if p.caption in trained], known, process, listener)
    name = f"{store.folder.name}-{len(train)} {held_store.folder.name}-{len(measured)}"
    return Data(train, measured, name, None if bounds is None else bounds.tokens)


@dataclass(frozen=True)
class TextBounds:
    """Where training texts end: at one of the tokens `ends`, or after `tokens` tokens."""

    ends: tuple[int, ...]
    tokens: int


def text_bounds(request: TrainConfig, target: Decoder, conditioner: Conditioner) -> TextBounds | None:
    """Return where the texts of a request end; None for images. Raises UserError for a length that nothing has."""
    text = request.loaded.spec.text
    if text is None or not isinstance(conditioner, TextConditioner):
        return None
    most = target.cfg.tokens
    tokens = min(TOKENS, most) if request.tokens is None else request.tokens
    if tokens > most:
        raise UserError("--tokens", expected=f"1 to {most}, the target's length", found=str(tokens))
    return TextBounds(conditioner.token_ids(text.end), tokens)


def _filled(store: CodeStore, make: Make, process: Process, listener: TrainCallbacks, what: str) -> Tensor:
    store.fill(make, lambda done, of: listener.images(what, done, of), (process.rank, process.count))
    process.wait()
    return store.load()


def _drawn_by(request: TrainConfig) -> dict[str, Any]:
    """Return what the target's images depend on besides prompts and seeds."""
    spec, files = request.loaded.spec, request.loaded.files
    hashes = {key: sha256_file(path) for key, path in files.items() if key.startswith(("target", "condition"))}
    return {
        "files": hashes,
        "sampling": spec.sampling.model_dump(mode="json"),
        "condition": spec.condition.model_dump(mode="json"),
    }


def _encoded(
    request: TrainConfig,
    target: Decoder,
    found: list[CaptionedImage],
    prompts: Prompts,
    process: Process,
    listener: TrainCallbacks,
) -> tuple[TrainingImages, CodeStore]:
    """Encode images with the spec's tokenizer, inserting forced tokens where the target's layout has them."""
    path, layout = request.loaded.files["image.weights"], target.cfg.layout
    tokenizer = load_tokenizer(path).to(process.device)
    if tokenizer.cfg.codebook_size != layout.codes:
        expected, fix = f"the target's {layout.codes} codes", "name the tokenizer that the target was trained with"
        raise UserError(str(path), expected=expected, found=str(tokenizer.cfg.codebook_size), fix=fix)
    side = layout.rows * tokenizer.cfg.downsampling
    whole, code_positions = torch.from_numpy(layout.forced), torch.from_numpy(layout.code_positions)

    @torch.inference_mode()
    def make(shard: range) -> Tensor:
        pixels = load_pixels([found[k] for k in shard], side)
        codes = whole.repeat(len(shard), 1)
        codes[:, code_positions] = tokenizer.encode(pixels.to(process.device)).cpu()
        return codes

    identity = {"tokenizer": sha256_file(path), "images": digest(found), "side": side}
    store = CodeStore(request.folder, "folder", identity, len(found), target.cfg.tokens, target.cfg.vocab)
    codes = _filled(store, make, process, listener, "encoding images")
    number = {text: i for i, text in enumerate(prompts.texts)}
    return TrainingImages(prompts, codes, tuple(number[p.caption] for p in found), bool(target.cfg.padded)), store


def batch_at(step: int, size: int, count: int, seed: int) -> list[int]:
    """Return the image numbers of a step's batch, from shuffled epochs one after another.

    Depends only on the arguments, so that a resumed training uses the same batches.
    """
    return [
        _epoch(position // count, count, seed)[position % count] for position in range(step * size, (step + 1) * size)
    ]


@lru_cache(maxsize=2)
def _epoch(epoch: int, count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist())

"""Draw emoji of continuous tokens and measure them: `python tools/emoji_continuous.py FOLDER`.

FOLDER has the files that `tools/train_emoji.py` writes in its stages `autoencoder` and `continuous`. Trained captions
are drawn by the target alone; printed is how often the nearest glyph of all trained is the prompt's own (`retrieval`).
With --draft printed is also how often a lossless round keeps the draft's first token (stage `continuous-draft`).
With --reconstruct no target is needed: the glyphs themselves are encoded, given the tokens' noise, and decoded.

Needs the `build` and `train` extras, scipy and the font.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coolsd_rt import limits  # noqa: E402  (the path above makes the checkout importable)
from coolsd_rt.checkpoints.continuous import load_autoencoder, load_continuous, load_continuous_draft  # noqa: E402
from coolsd_rt.cli.entry import enter  # noqa: E402
from coolsd_rt.cli.numbers import number  # noqa: E402
from coolsd_rt.cli.paths import FOLDER, WRITES_IN  # noqa: E402
from coolsd_rt.cli.terminal import print_json, say  # noqa: E402
from coolsd_rt.models.continuous.autoencoder import Autoencoder  # noqa: E402
from coolsd_rt.models.continuous.decoder import ContinuousDecoder  # noqa: E402
from coolsd_rt.prompts.words import WordVocabulary  # noqa: E402
from coolsd_rt.workflows.png import sheet, write_png  # noqa: E402
from tools.emoji import data  # noqa: E402
from tools.emoji.continuous import Drawing, acceptance, draw_tokens, pixels  # noqa: E402
from tools.emoji.quality import retrieve  # noqa: E402
from tools.emoji.train_autoencoder import FILE as AUTOENCODER_FILE  # noqa: E402
from tools.emoji.train_continuous import FILE as TARGET_FILE  # noqa: E402
from tools.emoji.train_continuous_draft import DRAFT_FILE  # noqa: E402

_BATCH = 16
_COLUMNS = 8


def reconstruct(autoencoder: Autoencoder, glyphs: data.Glyphs) -> npt.NDArray[np.uint8]:
    """The glyphs decoded from their tokens, with the noise that drawn tokens have."""
    x = torch.from_numpy(data.on_white(glyphs.rgba)).permute(0, 3, 1, 2) * 2 - 1
    rng = torch.Generator().manual_seed(0)
    made = []
    with torch.no_grad():
        for part in x.split(_BATCH):
            tokens = autoencoder.encode(part)
            made.append(pixels(autoencoder, tokens + autoencoder.cfg.noise * torch.randn(tokens.shape, generator=rng)))
    return np.concatenate(made)


@dataclass(frozen=True)
class Models:
    """The networks of a folder, and its words."""

    autoencoder: Autoencoder
    target: ContinuousDecoder
    draft: ContinuousDecoder | None
    vocab: WordVocabulary

    @staticmethod
    def of(folder: Path, steps: int | None, with_draft: bool) -> Models:
        """Load them. steps: of denoising; None: the model's. Raises UserError for a file that is none of theirs."""
        autoencoder = load_autoencoder(folder / AUTOENCODER_FILE)
        target = load_continuous(folder / TARGET_FILE, autoencoder)
        draft = load_continuous_draft(folder / DRAFT_FILE, target) if with_draft else None
        for model in (target, draft):
            if model is not None and steps is not None:
                model.head.set_steps(steps)
        return Models(autoencoder, target, draft, WordVocabulary.load(folder / "vocab.json"))


def drawn(
    models: Models, captions: Sequence[str], seed: int, how: Drawing
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """One image of each caption, with the seeds `seed`, `seed + 1`, ...; acceptance [n, N], empty without a draft."""
    words = torch.tensor([models.vocab.encode(caption).ids for caption in captions])
    made, kept = [], [np.empty((0, models.target.cfg.tokens))]
    for start in range(0, len(captions), _BATCH):
        part = words[start : start + _BATCH]
        seeds = [seed + start + i for i in range(len(part))]
        tokens = draw_tokens(models.target, part, seeds, how)
        made.append(pixels(models.autoencoder, tokens))
        if models.draft is not None:
            kept.append(acceptance((models.target, models.draft), part, tokens, seeds, how))
    return np.concatenate(made), np.concatenate(kept)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--prompts", type=number(limits.IMAGES), default=64, show_default=True, help="Number of captions.")
@click.option("--seed", type=number(limits.TRAIN_SEED), default=1000, show_default=True)
@click.option("--cfg-scale", type=number(limits.CFG_SCALE), default=1.5, show_default=True)
@click.option("--temperature", type=number(limits.TEMPERATURE), default=1.0, show_default=True)
@click.option("--steps", type=click.IntRange(1, 25), help="Denoising steps of a token; default: the model's.")
@click.option("--draft", "with_draft", is_flag=True, help="Print acceptance too.")
@click.option("--reconstruct", "only_images", is_flag=True, help="Encode and decode the glyphs instead.")
@click.option("--out", type=WRITES_IN, help="Folder for sheet.png, all images on one.")
@click.option("--json", "as_json", is_flag=True)
def main(  # noqa: PLR0913
    folder: Path,
    prompts: int,
    seed: int,
    cfg_scale: float,
    temperature: float,
    steps: int | None,
    with_draft: bool,
    only_images: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Retrieval accuracy of the models in FOLDER on trained captions."""
    autoencoder = load_autoencoder(folder / AUTOENCODER_FILE)
    models = None if only_images else Models.of(folder, steps, with_draft)
    try:
        glyphs = data.choose(data.render(data.find_font()), data.COUNT)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    count = min(prompts, len(glyphs.captions))
    chosen = np.random.default_rng(seed).choice(len(glyphs.captions), count, replace=False)
    captions = [glyphs.captions[i] for i in chosen]
    begin, kept = time.perf_counter(), np.empty((0, 0))
    if models is None:
        images = reconstruct(autoencoder, data.Glyphs(glyphs.rgba[chosen], tuple(captions)))
    else:
        images, kept = drawn(models, captions, seed, Drawing(cfg_scale, temperature))
    seconds = (time.perf_counter() - begin) / count
    report = {"retrieval": retrieve(images, captions, glyphs).accuracy, "images": count, "seconds_an_image": seconds}
    if len(kept):
        report["acceptance"] = float(kept.mean())
    if out is not None:
        write_png(out, "sheet.png", sheet(list(images), captions, _COLUMNS))
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        say(f"{name:16} {value:.3f}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    enter(main)

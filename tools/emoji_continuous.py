"""Draw emoji of continuous tokens and measure them: `python tools/emoji_continuous.py FOLDER`.

FOLDER has the files that `tools/train_emoji.py` writes in its stages `autoencoder` and `continuous`. Trained captions
are drawn; printed is how often the nearest glyph of all trained is the prompt's own (`retrieval`). With --length the
draft (stage `continuous-draft`) drafts so many tokens in each round: printed are also the tokens of a round, the
probability that a judged draft is kept, and the exact KL of a token's law from the target's (--delta relaxes it).
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
from coolsd_rt.cli.terminal import note, print_json, say  # noqa: E402
from coolsd_rt.law import make_omegas  # noqa: E402
from coolsd_rt.models.continuous.autoencoder import Autoencoder  # noqa: E402
from coolsd_rt.models.continuous.decoder import ContinuousDecoder  # noqa: E402
from coolsd_rt.prompts.words import WordVocabulary  # noqa: E402
from coolsd_rt.runtime.continuous import VectorGeneration, VectorLaw, VectorSampling  # noqa: E402
from coolsd_rt.workflows.png import sheet, write_png  # noqa: E402
from tools.emoji import data  # noqa: E402
from tools.emoji.continuous import draw, pixels  # noqa: E402
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
    models: Models, captions: Sequence[str], seed: int, how: VectorSampling, law: VectorLaw
) -> tuple[npt.NDArray[np.uint8], list[VectorGeneration]]:
    """One image of each caption, with the seeds `seed`, `seed + 1`, ...; and what each batch amounted to."""
    words = torch.tensor([models.vocab.encode(caption).ids for caption in captions])
    images, found = [], []
    for start in range(0, len(captions), _BATCH):
        part = words[start : start + _BATCH]
        seeds = [seed + start + i for i in range(len(part))]
        made = draw((models.target, models.draft), part, seeds, how, law)
        images.append(pixels(models.autoencoder, torch.from_numpy(made.tokens)))
        found.append(made)
        note(f"{start + len(part)} of {len(captions)} images")
    return np.concatenate(images), found


def rounds_of(found: Sequence[VectorGeneration]) -> dict[str, float]:
    """Figures of the rounds of some batches of one law."""
    counts = [made.statistics for made in found]
    rounds, tokens = sum(int(s.rounds.sum()) for s in counts), sum(int(s.accepts.sum()) for s in counts)
    judged = sum(int(s.attempts.sum()) for s in counts)
    shares = [made.expected_acceptance * int(made.statistics.attempts.sum()) for made in found]
    kl = [made.kl for made in found]
    return {
        "accept_length": 1 + tokens / rounds,
        "expected_acceptance": sum(shares) / judged,
        "kl_per_token": float("nan") if None in kl else sum(x or 0.0 for x in kl) / (rounds + tokens),
        "fallbacks": float(sum(s.degenerate for s in counts)),
    }


def omegas(length: int, delta: float | None) -> tuple[float, ...]:
    """The omegas of a round; lossless without a delta."""
    return (1.0,) * length if delta is None else make_omegas("exponential", length, delta=delta, nu=0.7, floor=1.0)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--prompts", type=number(limits.IMAGES), default=64, show_default=True, help="Number of captions.")
@click.option("--seed", type=number(limits.TRAIN_SEED), default=1000, show_default=True)
@click.option("--cfg-scale", type=number(limits.CFG_SCALE), default=1.5, show_default=True)
@click.option("--temperature", type=number(limits.TEMPERATURE), default=1.0, show_default=True)
@click.option("--steps", type=click.IntRange(1, 25), help="Denoising steps of a token; default: the model's.")
@click.option("--length", type=click.IntRange(0, 64), default=0, show_default=True, help="Drafts of a round.")
@click.option("--delta", type=number(limits.OMEGA), help="Relax: the demo's schedule, exponential with floor 1.")
@click.option("--unaligned", is_flag=True, help="The target's head has noise of its own.")
@click.option("--alone", type=click.IntRange(0, 1 << 20), default=0, help="First tokens drawn without drafts.")
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
    length: int,
    delta: float | None,
    unaligned: bool,
    alone: int,
    only_images: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Retrieval accuracy of the models in FOLDER on trained captions."""
    autoencoder = load_autoencoder(folder / AUTOENCODER_FILE)
    models = None if only_images else Models.of(folder, steps, length > 0)
    try:
        glyphs = data.choose(data.render(data.find_font()), data.COUNT)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    count = min(prompts, len(glyphs.captions))
    chosen = np.random.default_rng(seed).choice(len(glyphs.captions), count, replace=False)
    captions = [glyphs.captions[i] for i in chosen]
    how = VectorSampling(cfg_scale, temperature, not unaligned, alone)
    begin, found = time.perf_counter(), list[VectorGeneration]()
    if models is None:
        images = reconstruct(autoencoder, data.Glyphs(glyphs.rgba[chosen], tuple(captions)))
    else:
        images, found = drawn(models, captions, seed, how, VectorLaw(omegas(length, delta)))
    seconds = (time.perf_counter() - begin) / count
    report = {"retrieval": retrieve(images, captions, glyphs).accuracy, "images": count, "seconds_an_image": seconds}
    if length and found:
        report |= rounds_of(found)
    if out is not None:
        write_png(out, "sheet.png", sheet(list(images), captions, _COLUMNS))
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        say(f"{name:16} {value:.3f}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    enter(main)

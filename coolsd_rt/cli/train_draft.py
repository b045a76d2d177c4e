"""`coolsd-rt train-draft SPEC`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.output import json_option, note, print_json, show_fields
from coolsd_rt.cli.paths import READS, READS_OR_STDIN, SPEC, WRITES, WRITES_IN
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.errors import MissingExtra
from coolsd_rt.files import read_lines
from coolsd_rt.spec import load_spec

if TYPE_CHECKING:
    from coolsd_rt.train.acceptance import Acceptance
    from coolsd_rt.train.config import TrainCallbacks, TrainProgress, TrainReport


def _shares(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


class _TrainDraftScreen:
    """Progress of training: images drawn or read, then training steps."""

    def __init__(self, work: Work) -> None:
        self._work, self._stage = work, ""
        work.start("loading")

    def listener(self) -> TrainCallbacks:
        from coolsd_rt.train.config import TrainCallbacks

        return TrainCallbacks(note, self._images, self._stepped, self._measured)

    def _images(self, what: str, done: int, of: int) -> None:
        self._begin(what, of, what.split()[-1])
        self._work.update(done, of)

    def _stepped(self, at: TrainProgress) -> None:
        figures = f"loss {at.loss:.3f}, TV by depth {_shares(at.tv)}"
        self._begin("training", at.steps, "steps at most")
        self._work.update(at.step, at.steps, figures=figures)

    def _begin(self, stage: str, of: int, unit: str) -> None:
        if stage != self._stage:
            self._stage = stage
            self._work.start(stage, of, unit)

    def _measured(self, step: int, found: Acceptance, best: bool) -> None:
        word = ", the best so far" if best else ""
        note(f"step {step}: accept length {found.accept_length:.4f} (by position {_shares(found.acceptance)}){word}")


def _show(report: TrainReport, unit: str) -> None:
    best, first = report.best, report.start
    show_fields(
        {
            "draft": report.out,
            "steps": f"{report.steps}, the best at {report.best_step} "
            f"({'no further improvement' if report.stopped == 'patience' else 'the maximum'})",
            "trained on": f"{report.images} {unit}",
            "held out": f"{best.images} {unit} of {report.held_out_prompts} prompts",
            "accept length, lossless": f"{best.accept_length:.3f} (at the start {first.accept_length:.3f})",
            "acceptance by position": _shares(best.acceptance),
            "accept length, the spec's schedule": f"{best.relaxed:.3f} (at the start {first.relaxed:.3f})",
            "seconds": f"{report.seconds:.0f}",
        }
    )


@dataclass(frozen=True)
class _TrainDraftOptions:
    """Value of each option, by its name in click."""

    spec: Path
    data: str
    out: Path
    kind: Literal["eagle", "eagle3", "model", "rows"]
    file: Path | None
    measure_on: Path | None
    start_from: Path | None
    layers: int | None
    dim: int | None
    heads: int | None
    ffn: int | None
    own_steps: int | None
    noise: float | None
    tv_weight: float
    steps: int
    batch: int
    lr: float
    every: int
    patience: int
    held_out: int
    seed: int
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"] | None
    threads: int | None
    work: Path | None
    tensorboard: Path | None
    wandb: str | None
    tokens: int | None
    draft_vocab: int | None
    overwrite: bool
    as_json: bool


@click.command()
@click.argument("spec", type=SPEC)
@click.option(
    "--data",
    required=True,
    metavar="DIR|self:N",
    help="Training data: a folder of images with captions, or N images drawn by the target.",
)
@click.option("--out", type=WRITES, required=True, help="Safetensors file to write.")
@click.option(
    "--kind",
    type=click.Choice(["eagle", "eagle3", "model", "rows"]),
    default="eagle3",
    show_default=True,
    help="Kind of draft: eagle, an EAGLE head; eagle3, an EAGLE head trained on its own predictions; model, a separate "
    "small model; rows, a head that drafts a row at once.",
)
@click.option(
    "--prompts",
    "file",
    type=READS_OR_STDIN,
    help="File of prompts for --data self:N, one per line; - reads standard input. Default: sample prompts of the "
    "condition. Refused with --data DIR, whose captions are the prompts.",
)
@click.option(
    "--measure-on",
    type=READS_OR_STDIN,
    metavar="FILE",
    help="File of prompts for the held-out images, one per line. Default: a tenth of the prompts, at least 1 and at "
    "most --held-out, excluded from training.",
)
@click.option("--from", "start_from", type=READS, help="Weights of a draft to start from.")
@click.option(
    "--layers",
    type=number(limits.LAYERS),
    help="Number of draft layers. Default: 1; for kind model, a quarter of the target's layers.",
)
@click.option("--dim", type=number(limits.WIDTH), help="Hidden width (kind model only). Default: the target's width.")
@click.option(
    "--heads",
    type=number(limits.HEADS),
    help="Number of attention heads (kind model only). Default: heads as wide as the target's.",
)
@click.option("--ffn", type=number(limits.FFN), help="Feed-forward width. Default: the target's, scaled with --dim.")
@click.option(
    "--own-steps",
    type=number(limits.OWN_STEPS),
    help="Number of consecutive draft positions in training (kind eagle3). The first position reads the target's "
    "features, each later one the draft's prediction at the position before. Default: the draft length, at most 5. "
    "Kind rows: drafts that are guessed along the row, beside those from the row above. Default: 5.",
)
@click.option(
    "--noise",
    type=number(limits.NOISE),
    help="Range of the uniform noise added to the features, in standard deviations (kinds eagle and eagle3 only). "
    "Default: 0.1 for eagle, 0 for eagle3.",
)
@click.option(
    "--tv-weight",
    type=number(limits.TV_WEIGHT),
    default=1.0,
    show_default=True,
    help="Weight of TV(P, Q), the share of rejected drafts, in the loss; the cross-entropy has weight 1.",
)
@click.option("--steps", type=number(limits.STEPS), default=4000, show_default=True, help="Maximum training steps.")
@click.option(
    "--batch",
    type=number(limits.TRAIN_BATCH),
    default=8,
    show_default=True,
    help="Images per step, over all processes.",
)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=1e-3, show_default=True, help="Peak learning rate.")
@click.option(
    "--every",
    type=number(limits.STEPS),
    default=200,
    show_default=True,
    help="Steps between measurements and checkpoints.",
)
@click.option(
    "--patience",
    type=number(limits.PATIENCE),
    default=5,
    show_default=True,
    help="Number of measurements without an improvement after which training stops.",
)
@click.option("--held-out", type=number(limits.IMAGES), default=16, show_default=True, help="Images to measure on.")
@click.option(
    "--seed",
    type=number(limits.TRAIN_SEED),
    default=0,
    show_default=True,
    help="Random seed of the initial weights, held-out prompts, drawn images, batches, guidance scales and noise.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Numeric precision used in training.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Training device. Default: cuda if a GPU is available."
)
@threads_option("training, on a CPU")
@click.option(
    "--work",
    type=WRITES_IN,
    help="Folder of the checkpoint, the log and the codes. Default: OUT with the suffix .train.",
)
@click.option(
    "--tokens",
    type=number(limits.TEXT_TOKENS),
    help="Most tokens of a training text (targets that write text only). Default: 256, at most the target's length.",
)
@click.option(
    "--draft-vocab",
    type=number(limits.CODES),
    help="Number of tokens that the head drafts, the most frequent of the training texts (EAGLE heads of targets that "
    "write text only). Default: all.",
)
@click.option("--tensorboard", type=WRITES_IN, metavar="DIR", help="Folder to write TensorBoard event files to.")
@click.option("--wandb", metavar="PROJECT", help="Weights & Biases project to send figures to. Off by default.")
@overwrite_option
@json_option
@gathered(_TrainDraftOptions)
def command(given: _TrainDraftOptions) -> None:
    """Train a draft model for a spec's target, and measure its accept length on held-out prompts during training.

    OUT holds the best weights so far; a file that this training did not write is refused. Training stops when the
    weights no longer improve. After an interruption (kill or Ctrl-C) the same command resumes, and reaches the same
    weights. Several GPUs: accelerate launch -m coolsd_rt.cli train-draft ...

    \b
    Example:
      coolsd-rt train-draft pipelines/emoji.yaml --data self:2000 --prompts prompts.txt --out out/draft.safetensors
      coolsd-rt train-draft my.yaml --data photos/ --kind model --layers 4 --out out/small.safetensors
    """
    try:
        from coolsd_rt.train.config import TrainConfig
        from coolsd_rt.train.networks import DraftSizes
        from coolsd_rt.train.run import train_draft
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train", "training a draft") from error
    request = TrainConfig(
        load_spec(given.spec, check_files=True),
        given.data,
        given.out,
        given.kind,
        tuple(read_lines(given.file)) if given.file else (),
        tuple(read_lines(given.measure_on)) if given.measure_on else (),
        DraftSizes(given.layers, given.dim, given.heads, given.ffn),
        given.start_from,
        given.own_steps,
        given.noise,
        given.steps,
        given.batch,
        given.lr,
        given.every,
        given.patience,
        given.held_out,
        given.seed,
        given.precision,
        given.device,
        given.work,
        given.tensorboard,
        given.wandb,
        given.threads,
        given.overwrite,
        given.tokens,
        given.draft_vocab,
        given.tv_weight,
    )
    with progress(quiet=given.as_json) as shown:
        try:
            report = train_draft(request, _TrainDraftScreen(shown).listener())
        except KeyboardInterrupt:
            note(f"progress is saved in {request.folder}; run the same command to resume")
            raise
    if given.as_json:
        print_json(report.as_dict())
    else:
        _show(report, "texts" if request.loaded.spec.writes == "text" else "images")

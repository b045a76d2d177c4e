"""`coolsd-rt train-draft SPEC`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.progress import MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from coolsd_rt.cli.generate import read_prompts
from coolsd_rt.cli.output import json_option, note, print_json, progress, show_fields
from coolsd_rt.errors import MissingExtra
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows.entry import overwrite_option

if TYPE_CHECKING:
    from coolsd_rt.train.acceptance import Acceptance
    from coolsd_rt.train.request import Listener, Progress, Report


def _shares(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


class _Screen:
    """Bars on a terminal, plain lines elsewhere. All of it on stderr."""

    def __init__(self, bar: Bar, quiet: bool) -> None:
        self._bar, self._lines = bar, bar.disable and not quiet
        self._task = bar.add_task("loading", total=None, figures="")

    def listener(self) -> Listener:
        from coolsd_rt.train.request import Listener

        return Listener(note, self._pictures, self._stepped, self._measured)

    def _pictures(self, what: str, done: int, of: int) -> None:
        self._bar.update(self._task, description=what, completed=done, total=of)
        if self._lines:
            note(f"{what}: {done} of {of}")

    def _stepped(self, at: Progress) -> None:
        figures = f"loss {at.loss:.3f}, TV by depth {_shares(at.tv)}"
        self._bar.update(self._task, description="training", completed=at.step, total=at.steps, figures=figures)
        if self._lines:
            note(f"step {at.step} of {at.steps}: {figures}")

    def _measured(self, step: int, found: Acceptance, best: bool) -> None:
        word = ", the best so far" if best else ""
        note(f"step {step}: accept length {found.accept_length:.4f} (by position {_shares(found.acceptance)}){word}")


def _show(report: Report) -> None:
    best, first = report.best, report.start
    show_fields(
        {
            "draft": report.out,
            "steps": f"{report.steps}, the best at {report.best_step} "
            f"({'it no longer rose' if report.stopped == 'patience' else 'as many as asked for'})",
            "trained on": f"{report.pictures} pictures",
            "held out": f"{best.pictures} pictures of {report.held_out_prompts} prompts",
            "accept length, lossless": f"{best.accept_length:.3f} (at the start {first.accept_length:.3f})",
            "acceptance by position": _shares(best.acceptance),
            "accept length, the spec's schedule": f"{best.relaxed:.3f} (at the start {first.relaxed:.3f})",
            "seconds": f"{report.seconds:.0f}",
        }
    )


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DIR|self:N", help="Pictures with captions, or N drawn by the target.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Safetensors file to write.")
@click.option(
    "--kind", type=click.Choice(["eagle", "eagle3", "model"]), default="eagle3", show_default=True,
    help="An EAGLE head, one trained on its own predictions, or a small model of its own.",
)  # fmt: skip
@click.option("--prompts", "file", type=click.Path(path_type=Path), help="Prompts of self:N, one a line.")
@click.option(
    "--measure-on", type=click.Path(path_type=Path), metavar="FILE",
    help="Prompts of the held-out pictures, one a line. Default: a tenth of the prompts, never trained on.",
)  # fmt: skip
@click.option("--from", "start_from", type=click.Path(path_type=Path), help="Start from this draft's weights.")
@click.option("--layers", type=click.IntRange(min=1), help="Of the draft. Default: 1; of a model a quarter.")
@click.option("--dim", type=click.IntRange(min=1), help="Width of a model of its own. Default: the target's.")
@click.option("--heads", type=click.IntRange(min=1), help="Of a model of its own. Default: as wide as the target's.")
@click.option("--ffn", type=click.IntRange(min=1), help="Feed-forward width. Default: the target's.")
@click.option(
    "--own-steps", type=int, help="Own predictions in training (eagle3). Default: the draft length, at most 5."
)
@click.option("--noise", type=float, help="Noise on features, in standard deviations. Default: 0.1 for eagle, else 0.")
@click.option("--steps", type=int, default=4000, show_default=True, help="At most so many.")
@click.option("--batch", type=int, default=8, show_default=True, help="Pictures a step, of all processes together.")
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--every", type=int, default=200, show_default=True, help="Steps between measurements and checkpoints.")
@click.option("--patience", type=int, default=5, show_default=True, help="Measurements without a rise until it stops.")
@click.option("--held-out", type=int, default=16, show_default=True, help="Pictures to measure on.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of training."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: a GPU if there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads on a CPU.")
@click.option(
    "--work", type=click.Path(path_type=Path), help="Checkpoint, log and codes. Default: beside OUT, in .train."
)
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Write event files there.")
@click.option("--wandb", metavar="PROJECT", help="Send figures to a W&B project. Off by default.")
@overwrite_option
@json_option
def command(
    spec: Path, data: str, out: Path, kind: Literal["eagle", "eagle3", "model"], file: Path | None,
    measure_on: Path | None, start_from: Path | None, layers: int | None, dim: int | None, heads: int | None,
    ffn: int | None, own_steps: int | None, noise: float | None, steps: int, batch: int, lr: float, every: int,
    patience: int, held_out: int, seed: int, precision: Literal["fp32", "bf16"], device: str | None,
    threads: int | None, work: Path | None, tensorboard: Path | None, wandb: str | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a draft for a spec's target, and measure its accept length on held-out prompts as it goes.

    The best weights so far stand in OUT, which is refused if it is a file that this training did not write; it stops
    when they no longer get better. After a kill or Ctrl-C the same command goes on, to the same weights. Several GPUs:
    accelerate launch -m coolsd_rt.cli train-draft ...

    \b
    Example:
      coolsd-rt train-draft pipelines/emoji.yaml --data self:2000 --prompts prompts.txt --out out/draft.safetensors
      coolsd-rt train-draft my.yaml --data photos/ --kind model --layers 4 --out out/small.safetensors
    """
    try:
        import torch

        from coolsd_rt.train.networks import Shape
        from coolsd_rt.train.request import Request
        from coolsd_rt.train.train import train_draft
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train", "training a draft") from error
    if threads is not None:
        torch.set_num_threads(threads)
    request = Request(
        load_spec(spec, check_files=True), data, out, kind, tuple(read_prompts(file)) if file else (),
        tuple(read_prompts(measure_on)) if measure_on else (), Shape(layers, dim, heads, ffn), start_from, own_steps,
        noise, steps, batch, lr, every, patience, held_out, seed, precision, device, work, tensorboard, wandb,
        overwrite,
    )  # fmt: skip
    with progress(MofNCompleteColumn(), TextColumn("{task.fields[figures]}"), quiet=as_json) as bar:
        try:
            report = train_draft(request, _Screen(bar, as_json).listener())
        except KeyboardInterrupt:
            note(f"what is done is kept in {request.folder}: the same command goes on from there")
            raise
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)

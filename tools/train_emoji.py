"""Train the demo's models: `python tools/train_emoji.py STAGE`.

Needs the `build` and `train` extras and the font: `pip install -e .[build,train]` and
`apt-get install fonts-noto-color-emoji`. Every stage resumes from its last checkpoint and takes a seed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coolsd_rt import limits  # noqa: E402  (the path above makes the checkout importable without an install)
from coolsd_rt.cli.entry import enter, overwrite_option  # noqa: E402
from coolsd_rt.cli.numbers import number  # noqa: E402
from coolsd_rt.cli.paths import WRITES_IN  # noqa: E402
from coolsd_rt.cli.terminal import say  # noqa: E402  (the path above makes the checkout importable without an install)

# The path above makes the checkout importable without an install.
from coolsd_rt.store.outputs import check_output, write_output  # noqa: E402
from tools.emoji import data  # noqa: E402
from tools.emoji.common import Workspace  # noqa: E402


@dataclass(frozen=True)
class Setup:
    """What every stage is given. `chosen` are the glyphs that the target learns, `all` those of the tokenizer."""

    work: Workspace
    all: data.Glyphs
    chosen: data.Glyphs
    device: str
    seed: int
    overwrite: bool

    @property
    def position_of_chosen(self) -> np.ndarray:
        """Indices of the chosen glyphs among all."""
        position = {c: i for i, c in enumerate(self.all.captions)}
        return np.array([position[c] for c in self.chosen.captions])

    def check_release(self, *names: str) -> None:
        """Raise UserError if a stage would replace finished weights without being told to."""
        for name in names:
            check_output(self.work.release / name, "--release", overwrite=self.overwrite)


@click.group(context_settings={"show_default": True})
@click.option("--work", type=WRITES_IN, default=ROOT / "data" / "emoji", help="Folder of checkpoints and logs.")
@click.option("--release", type=WRITES_IN, default=ROOT / "pipelines" / "emoji", help="Folder of the finished weights.")
@click.option("--font", default=None, help="Path of NotoColorEmoji.ttf; default: Debian's path.")
@click.option("--device", default="cpu", help="Torch device, cpu or cuda.")
@click.option("--seed", type=number(limits.TRAIN_SEED), default=0)
@overwrite_option
@click.pass_context
def main(
    ctx: click.Context, work: Path, release: Path, font: str | None, device: str, seed: int, overwrite: bool
) -> None:
    """Train the emoji demo, one stage at a time: vq, target, draft and prompts, or autoencoder, continuous and
    continuous-draft.

    The shipped weights are in the release folder: name another, or give --overwrite to replace them.
    """
    try:
        glyphs = data.render(data.find_font(font))
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    chosen = data.choose(glyphs, data.COUNT)
    ctx.obj = Setup(Workspace(work, release), glyphs, chosen, device, seed, overwrite)


@main.command("vq")
@click.option("--steps", type=number(limits.STEPS), default=1500)
@click.option("--batch", type=number(limits.TRAIN_BATCH), default=32)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=2e-3)
@click.pass_obj
def vq(obj: Setup, steps: int, batch: int, lr: float) -> None:
    """The image tokenizer."""
    from tools.emoji import train_vq
    from tools.emoji.loop import TrainSettings

    obj.check_release("vq.safetensors")
    train_vq.train(obj.work, obj.all, obj.position_of_chosen, TrainSettings(steps, batch, lr, obj.seed, obj.device))


@main.command("target")
@click.option("--steps", type=number(limits.STEPS), default=7000)
@click.option("--batch", type=number(limits.TRAIN_BATCH), default=16)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=3e-3)
@click.option("--pool", type=number(limits.POOL), default=64, help="Number of tokenisations kept per glyph.")
@click.option("--fuse/--no-fuse", default=True, help="Compile the layers (requires a C++ compiler on a CPU).")
@click.pass_obj
def target(obj: Setup, steps: int, batch: int, lr: float, pool: int, fuse: bool) -> None:
    """The target network."""
    from tools.emoji import train_target
    from tools.emoji.loop import TrainSettings

    obj.check_release("vocab.json", "target.safetensors")
    train_target.train(obj.work, obj.chosen, TrainSettings(steps, batch, lr, obj.seed, obj.device, pool, fuse))


@main.command("draft")
@click.option("--steps", type=number(limits.STEPS), default=4000)
@click.option(
    "--batch",
    type=number(limits.TRAIN_BATCH),
    default=8,
    help="Images per step; each is used with and without its caption.",
)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=3e-3)
@click.option("--pool", type=number(limits.POOL), default=64, help="Number of tokenisations kept per glyph.")
@click.option("--fuse/--no-fuse", default=True, help="Compile the layers (requires a C++ compiler on a CPU).")
@click.pass_obj
def draft(obj: Setup, steps: int, batch: int, lr: float, pool: int, fuse: bool) -> None:
    """The EAGLE head, distilled from the target."""
    from tools.emoji import train_draft
    from tools.emoji.loop import TrainSettings

    obj.check_release("draft.safetensors")
    train_draft.train(obj.work, obj.chosen, TrainSettings(steps, batch, lr, obj.seed, obj.device, pool, fuse))


@main.command("autoencoder")
@click.option("--steps", type=number(limits.STEPS), default=400)
@click.option("--batch", type=number(limits.TRAIN_BATCH), default=16)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=1e-3)
@click.pass_obj
def autoencoder(obj: Setup, steps: int, batch: int, lr: float) -> None:
    """The autoencoder of continuous tokens; starts from the tokenizer in the release folder."""
    from tools.emoji import train_autoencoder
    from tools.emoji.loop import TrainSettings

    obj.check_release("autoencoder.safetensors")
    settings = TrainSettings(steps, batch, lr, obj.seed, obj.device)
    train_autoencoder.train(obj.work, obj.all, obj.position_of_chosen, settings)


@main.command("continuous")
@click.option("--steps", type=number(limits.STEPS), default=7000)
@click.option("--batch", type=number(limits.TRAIN_BATCH), default=16)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=2e-3)
@click.option("--pool", type=number(limits.POOL), default=32, help="Number of encodings kept per glyph.")
@click.option("--fuse/--no-fuse", default=True, help="Compile the layers (requires a C++ compiler on a CPU).")
@click.pass_obj
def continuous(obj: Setup, steps: int, batch: int, lr: float, pool: int, fuse: bool) -> None:
    """The target of continuous tokens."""
    from tools.emoji import train_continuous
    from tools.emoji.loop import TrainSettings

    obj.check_release(train_continuous.FILE)
    train_continuous.train(obj.work, obj.chosen, TrainSettings(steps, batch, lr, obj.seed, obj.device, pool, fuse))


@main.command("continuous-draft")
@click.option("--steps", type=number(limits.STEPS), default=4000)
@click.option("--batch", type=number(limits.TRAIN_BATCH), default=16)
@click.option("--lr", type=number(limits.LEARNING_RATE), default=2e-3)
@click.option("--pool", type=number(limits.POOL), default=32, help="Number of encodings kept per glyph.")
@click.option("--fuse/--no-fuse", default=True, help="Compile the layers (requires a C++ compiler on a CPU).")
@click.pass_obj
def continuous_draft(obj: Setup, steps: int, batch: int, lr: float, pool: int, fuse: bool) -> None:
    """The draft of continuous tokens, distilled from their target."""
    from tools.emoji import train_continuous_draft
    from tools.emoji.loop import TrainSettings

    obj.check_release(train_continuous_draft.DRAFT_FILE)
    settings = TrainSettings(steps, batch, lr, obj.seed, obj.device, pool, fuse)
    train_continuous_draft.train(obj.work, obj.chosen, settings)


@main.command("prompts")
@click.pass_obj
def prompts(obj: Setup) -> None:
    """Write every trained caption to prompts.txt in the release folder, one a line."""
    path = obj.work.release / "prompts.txt"
    write_output(path, ("\n".join(obj.chosen.captions) + "\n").encode(), overwrite=obj.overwrite)
    say(path)


if __name__ == "__main__":
    enter(main)

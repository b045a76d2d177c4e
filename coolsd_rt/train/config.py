"""The request of a training, its progress reports, and its result. Pure data.

Knows ranges of the values. Does not know how training works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import InstanceOf

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.spec.fields import Flag, Images, Threads, check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.train.acceptance import Acceptance
from coolsd_rt.train.networks import DraftSizes, Kind, check_sizes

OWN_STEPS = 5  # default limit for the number of depths
TOKENS = 256  # default for the most tokens of a training text
NOISE = 0.1  # EAGLE-1's noise, in standard deviations of the target's features


@dataclass(frozen=True)
class TrainConfig:
    """A request for a training.

    Attributes:
        loaded: the spec, with the target and the draft's length.
        data: folder of images with captions, or `self:N` for N images drawn by the target.
        out: weights file to write.
        kind: kind of draft and training.
        prompts: for `self:N`; empty: the condition's samples.
        measured_prompts: prompts of the held-out images; empty: a tenth of the prompts, which are then not trained on.
        shape: sizes of the draft.
        start_from: weights file to start from; None starts with random weights.
        own_steps: steps of the head's own predictions, or of a row head the drafts that are guessed along the row; None
            is the default of the kind.
        noise: feature noise in standard deviations; None is the default of the kind.
        tv_weight: weight of TV(P, Q) in the loss, relative to the cross-entropy's 1.
        steps: most training steps.
        batch: images per step.
        lr: peak learning rate.
        every: steps between two measurements.
        patience: measurements without improvement before training stops.
        held_out: number of held-out images.
        work: folder of checkpoint, log and codes; None is beside `out`.
        tensorboard: folder of TensorBoard files; None writes none.
        wandb: W&B project to send figures to; None sends none.
        threads: CPU threads; None is the usable cores.
        overwrite: whether `out` may replace another file.
        tokens: most tokens of a training text; None: 256, or the target's length if that is less. For targets that
            write text only.
        draft_vocab: tokens that the head drafts, the most frequent of the training texts; None: all, or those of
            `start_from`. For EAGLE heads of targets that write text only.
    """

    loaded: InstanceOf[LoadedSpec]
    data: str
    out: Path
    kind: Kind = "eagle3"
    prompts: tuple[str, ...] = ()
    measured_prompts: tuple[str, ...] = ()
    shape: DraftSizes = field(default_factory=DraftSizes)
    start_from: Path | None = None
    own_steps: Annotated[int, Within(limits.OWN_STEPS)] | None = None
    noise: Annotated[float, Within(limits.NOISE)] | None = None
    steps: Annotated[int, Within(limits.STEPS)] = 4000
    batch: Annotated[int, Within(limits.TRAIN_BATCH)] = 8
    lr: Annotated[float, Within(limits.LEARNING_RATE)] = 1e-3
    every: Annotated[int, Within(limits.STEPS)] = 200
    patience: Annotated[int, Within(limits.PATIENCE)] = 5
    held_out: Images = 16
    seed: Annotated[int, Within(limits.TRAIN_SEED)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda"] | None = None
    work: Path | None = None
    tensorboard: Path | None = None
    wandb: str | None = None
    threads: Threads | None = None
    overwrite: Flag = False
    tokens: Annotated[int, Within(limits.TEXT_TOKENS)] | None = None
    draft_vocab: Annotated[int, Within(limits.CODES)] | None = None
    tv_weight: Annotated[float, Within(limits.TV_WEIGHT)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind not in ("eagle3", "rows") and self.own_steps not in (None, 1):
            fix = "use --kind eagle3"
            raise UserError(
                "--own-steps", expected=f"none for the kind {self.kind}", found=str(self.own_steps), fix=fix
            )
        check_sizes(self.kind, self.shape)
        if self.loaded.spec.writes != "text":
            for option, value in (("--tokens", self.tokens), ("--draft-vocab", self.draft_vocab)):
                if value is not None:
                    expected, fix = "none for a target that draws images", "leave it out"
                    raise UserError(option, expected=expected, found=str(value), fix=fix)
        self._check_rows()
        if self.kind == "model" and self.draft_vocab is not None:
            fix = "leave it out, or use --kind eagle or eagle3"
            expected = "none for the kind model, which has a head of its own"
            raise UserError("--draft-vocab", expected=expected, found=str(self.draft_vocab), fix=fix)
        if self.kind in ("model", "rows") and self.noise:
            fix = "leave it out, or use --kind eagle or eagle3"
            why = "which reads no features" if self.kind == "model" else "which is trained without"
            expected = f"none for the kind {self.kind}, {why}"
            raise UserError("--noise", expected=expected, found=f"{self.noise:g}", fix=fix)

    def _check_rows(self) -> None:
        """Raise UserError for what a row head does not go with."""
        if self.kind != "rows":
            return
        if self.loaded.spec.writes == "text":
            expected, fix = "eagle, eagle3 or model for a target that writes text", "use --kind eagle3"
            raise UserError("--kind", expected=expected, found="rows", fix=fix)
        if self.start_from is not None and self.own_steps is not None:
            expected, fix = "none with --from, whose file has the number", "leave it out"
            raise UserError("--own-steps", expected=expected, found=str(self.own_steps), fix=fix)

    @property
    def depths(self) -> int:
        """Steps of the head's own predictions in training, including the first, which uses target features.

        Of a row head 1: it has no own predictions, and its sizes say which drafts are trained.
        """
        if self.kind != "eagle3":
            return 1
        return self.own_steps or min(OWN_STEPS, self.loaded.spec.draft.length)

    @property
    def feature_noise(self) -> float:
        """Noise added to the target's features in training, in their standard deviations."""
        if self.noise is not None:
            return self.noise
        return NOISE if self.kind == "eagle" else 0.0

    @property
    def folder(self) -> Path:
        """Folder of checkpoint, log and codes."""
        return self.work or self.out.with_suffix(".train")


@dataclass(frozen=True)
class TrainProgress:
    """Progress after a step. `loss` and `tv`, TV(P, Q) of each depth, are means since the last report."""

    step: int
    steps: int
    loss: float
    tv: tuple[float, ...]


@dataclass(frozen=True)
class TrainCallbacks:
    """Callbacks that report progress."""

    note: Callable[[str], None] = lambda line: None
    images: Callable[[str, int, int], None] = lambda what, done, of: None
    stepped: Callable[[TrainProgress], None] = lambda progress: None
    measured: Callable[[int, Acceptance, bool], None] = lambda step, found, best: None


@dataclass(frozen=True)
class TrainReport:
    """The result of a training.

    start: measured before the first step. best: measured with the weights in `out`. stopped: the reason for stopping.
    """

    out: Path
    kind: Kind
    steps: int
    best_step: int
    start: Acceptance
    best: Acceptance
    stopped: Literal["steps", "patience"]
    images: int
    held_out_prompts: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return asdict(self) | {"out": str(self.out), "start": self.start.as_dict(), "best": self.best.as_dict()}

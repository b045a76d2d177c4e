"""What every training stage shares beside `coolsd_rt.train`: paths, a log, a learning-rate schedule.

Does not know which model is trained.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from coolsd_rt.cli.terminal import say


@dataclass(frozen=True)
class Workspace:
    """Where training keeps its things (git-ignored) and where finished weights go."""

    root: Path
    release: Path

    def file(self, name: str) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root / name


def learning_rate(step: int, total: int, peak: float, warmup: int, floor: float = 0.02) -> float:
    """Linear warm-up, then a cosine down to `floor * peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a released file, in float32."""
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(str(path)).items()}


class Log:
    """Lines with a clock, to the terminal and to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()

    def __call__(self, text: str) -> None:
        line = f"[{time.monotonic() - self.start:7.1f}s] {text}"
        say(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

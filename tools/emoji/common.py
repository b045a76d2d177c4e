"""What every training stage shares: paths, resumable checkpoints, averaged weights, learning-rate schedule.

Does not know which model is trained.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Workspace:
    """Where training keeps its things (git-ignored) and where finished weights go."""

    root: Path
    release: Path

    def file(self, name: str) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root / name


M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """Exponential moving average of a module's floating weights, with the usual warm-up of the decay."""

    def __init__(self, model: M, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = int(state["steps"])
        self.model.load_state_dict(state["model"])


def save_checkpoint(path: Path, **parts: Any) -> None:
    """Write to a temporary name, then rename: a kill leaves the last whole checkpoint."""
    partial = path.with_suffix(".partial")
    torch.save(parts, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The parts last saved, or None before the first save. Tensors and plain data only (weights_only)."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def learning_rate(step: int, total: int, peak: float, warmup: int, floor: float = 0.02) -> float:
    """Linear warm-up, then a cosine down to `floor * peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def release_weights(
    path: Path, model: nn.Module, config: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """One safetensors file with the model's config as JSON in its header: one key, since their order is not kept."""
    tensors: dict[str, Tensor] = {
        k: v.detach().to(dtype if v.is_floating_point() else v.dtype).contiguous()
        for k, v in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, str(partial), metadata={"config": json.dumps(dict(config), sort_keys=True)})
    partial.chmod(0o644)
    os.replace(partial, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a released file, in float32."""
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(str(path)).items()}


class Log:
    """Lines with a clock, to the terminal and to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()

    def __call__(self, text: str) -> None:
        line = f"[{time.monotonic() - self.start:7.1f}s] {text}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

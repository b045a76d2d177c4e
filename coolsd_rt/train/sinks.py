"""Writes the figures of a training: always to a log file, and to TensorBoard and W&B if requested.

Knows names and numbers. Does not know training.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from coolsd_rt.errors import MissingExtra
from coolsd_rt.files import check_target
from coolsd_rt.store.atomic import disk_errors


class Sink(Protocol):
    """A destination of figures."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures by name for a step."""
        ...

    def close(self) -> None:
        """Write everything that is buffered."""
        ...


class LinesSink:
    """log.jsonl: one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a line for a step. Raises CoolsdError if the disk is full or the folder is not writable."""
        check_target(self._path)
        with disk_errors(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")

    def close(self) -> None:
        """Do nothing: every line is already written."""


class TensorBoardSink:
    """TensorBoard event files in a folder."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingExtra("tensorboard", "train", "--tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with disk_errors(folder):
            self._writer: Any = SummaryWriter(str(folder))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures by name for a step."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbSink:
    """A run of a W&B project. Only on request, since the figures leave the machine."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise MissingExtra("wandb", "wandb", "--wandb")
        import wandb

        self._run: Any = wandb.init(project=project, config=dict(config))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures by name for a step."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()

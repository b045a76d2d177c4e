"""Where figures go beside the terminal: a file of lines always, TensorBoard and W&B if asked for.

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
    """Takes figures by name, at a step."""

    def write(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class LinesSink:
    """log.jsonl: one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        check_target(self._path)
        with disk_errors(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")

    def close(self) -> None:
        """Every line is written already."""


class TensorBoardSink:
    """Event files in a folder."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingExtra("tensorboard", "train", "--tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with disk_errors(folder):
            self._writer: Any = SummaryWriter(str(folder))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """A run of a W&B project. Off unless it is asked for: figures leave the machine."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise MissingExtra("wandb", "wandb", "--wandb")
        import wandb

        self._run: Any = wandb.init(project=project, config=dict(config))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()

"""What the HTTP process knows about each engine without loading it, and the options of the server.

Knows manifests and specs. Does not know processes or HTTP.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from coolsd_rt import limits
from coolsd_rt.serve.messages import Setup
from coolsd_rt.spec.condition import TextCondition
from coolsd_rt.spec.fields import Flag, Threads, check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.workflows.drawing import drafter_of
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.partial_images import CodeGrid


@dataclass(frozen=True)
class ServeConfig:
    """The checked options of `coolsd-rt serve`.

    slots: images or texts at once, of each engine; None is the spec's `engine.max_batch`. queue: those of each engine
    that may wait for a slot. timeout: the most seconds of a request.
    """

    engines: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: Annotated[int, Within(limits.PORT)] = 8000
    slots: Annotated[int, Within(limits.MAX_BATCH)] | None = None
    queue: Annotated[int, Within(limits.QUEUE)] = 64
    api_key_file: Path | None = None
    threads: Threads | None = None
    timeout: Annotated[float, Within(limits.REQUEST_SECONDS)] = 300.0
    log_json: Flag = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ServedEngine:
    """An engine that was checked, and the room that its images or texts have."""

    opened: OpenedEngine
    slots: int
    queue: int

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.opened.manifest.name

    @property
    def fingerprint(self) -> str:
        """Which build it is."""
        return self.opened.manifest.fingerprint

    @property
    def most(self) -> int:
        """Images or texts that may be made or wait at once."""
        return self.slots + self.queue

    @property
    def makes(self) -> Literal["image", "text"]:
        """What it makes of a prompt."""
        return self.opened.spec.writes

    @property
    def chats(self) -> bool:
        """Whether it reads chats: it has a template of them."""
        condition = self.opened.spec.condition
        return isinstance(condition, TextCondition) and condition.chat_template is not None

    @property
    def size(self) -> str:
        """Width and height of an image, as the API writes them."""
        side = self.opened.description.side
        return f"{side}x{side}"

    @property
    def setup(self) -> Setup:
        """What its process has to open."""
        files = {name: record.sha256 for name, record in self.opened.manifest.files.items()}
        folder = str(self.opened.folder.folder.resolve())
        return Setup(folder, self.fingerprint, files, self.slots, self.opened.threads)

    @cached_property
    def _grid(self) -> CodeGrid:
        return CodeGrid(self.opened.description)

    @property
    def rows(self) -> int:
        """Rows of codes of an image."""
        return self._grid.rows

    def as_model(self, samples: Sequence[str]) -> dict[str, Any]:
        """Return the entry of `/v1/models`. samples: prompts to try it with."""
        made = self.opened.manifest.created[:19]
        return {
            "id": self.name,
            "object": "model",
            "created": calendar.timegm(time.strptime(made, "%Y-%m-%dT%H:%M:%S")),
            "owned_by": "coolsd-rt",
            "coolsd": {
                "engine": self.fingerprint,
                "makes": self.makes,
                **(self._of_texts if self.makes == "text" else self._of_images),
                "slots": self.slots,
                "defaults": self._defaults,
                "samples": list(samples),
            },
        }

    @property
    def _of_images(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "tokens": self.opened.description.dims.tokens,
            "grid": [self.rows, self._grid.columns],
            "max_prompt": int(limits.PROMPT_CHARACTERS.high),
            "partial_images": min(int(limits.SERVED_PARTIAL_IMAGES.high), self.rows - 1),
        }

    @property
    def _of_texts(self) -> dict[str, Any]:
        dims = self.opened.description.dims
        return {"tokens": dims.tokens, "prompt_tokens": dims.prefix, "chats": self.chats}

    @property
    def _defaults(self) -> Mapping[str, Any]:
        """The values of the spec that a request may replace."""
        spec = self.opened.spec
        sections = {
            name: getattr(spec, name).model_dump(mode="json") for name in ("sampling", "schedule", "acceptance")
        }
        more = {name: getattr(spec, name).model_dump(mode="json") for name in ("resampler", "pacing")}
        draft = {"kind": drafter_of(spec.draft), "length": spec.draft.length}
        return {**sections, **more, "draft": draft}

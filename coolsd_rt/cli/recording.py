"""The options of verbs that draw a recording of rounds: `analyze` and `tune`. Does not know what is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coolsd_rt.schedules.analyze import RecordingConfig
from coolsd_rt.workflows.opening import PromptInputs


@dataclass(frozen=True)
class RecordingOptions:
    """Values of the options that say what is recorded, by their names in click."""

    engine: Path
    images: int
    prompts: tuple[str, ...]
    seed: int
    folder: Path | None
    max_tokens: int | None
    spec_file: Path | None
    threads: int | None
    features: Path | None
    text_encoder: Path | None
    as_json: bool

    @property
    def recording(self) -> RecordingConfig:
        """The recording to draw."""
        reading = PromptInputs(self.features, self.text_encoder)
        return RecordingConfig(
            self.engine,
            self.images,
            self.prompts,
            self.seed,
            self.folder,
            self.spec_file,
            self.threads,
            reading,
            self.max_tokens,
        )

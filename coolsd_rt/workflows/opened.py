"""An opened engine folder: the spec, the checked files, the prompt reader, and the loaded engine.

Every command, every measurement and `coolsd_rt.Pipeline` opens an engine here, so that none of them leaves a part out.
Each part is read when it is first asked for, and once: a value that the spec refuses is said before a file is hashed,
and the engine is loaded only if something has to be drawn.

Knows which parts an engine has. Does not know requests, nor how an image is drawn.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import cores
from coolsd_rt.backends import Description
from coolsd_rt.machine import machine
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import LoadedSpec, Spec
from coolsd_rt.store import EngineFolder, Manifest, VerifiedEngine, open_engine
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.costs import CostBook
from coolsd_rt.workflows.drawing import Settings


class OpenedEngine:
    """An engine with its spec, files and prompt reader.

    reading: what prompts are read with in the place of the spec's files. threads: of the engine; None is the usable
    cores. spec_file: where the spec is now, if it has moved since the build. Not safe to use from several threads.
    """

    def __init__(
        self,
        folder: EngineFolder,
        reading: opening.PromptInputs | None = None,
        threads: int | None = None,
        spec_file: Path | None = None,
    ) -> None:
        self.folder, self.reading, self.threads, self.spec_file = folder, reading, threads, spec_file

    @staticmethod
    def at(
        path: str | Path,
        reading: opening.PromptInputs | None = None,
        threads: int | None = None,
        spec_file: Path | None = None,
    ) -> OpenedEngine:
        """Find the engine: `engines/NAME` or one fingerprint's folder. Reads its manifest only.

        Raises UserError: there is none. CoolsdError: its manifest is broken.
        """
        return OpenedEngine(open_engine(path), reading, threads, spec_file)

    @property
    def manifest(self) -> Manifest:
        return self.folder.manifest

    @cached_property
    def spec(self) -> Spec:
        """The spec that it was built from, as its manifest has it. Raises CoolsdError: not one of today's."""
        return opening.spec_of(self.folder)

    @cached_property
    def description(self) -> Description:
        """Sizes, graphs and forced tokens. Raises CoolsdError: they do not fit the spec."""
        return opening.description_of(self.folder)

    @cached_property
    def verified(self) -> VerifiedEngine:
        """Its files, each of them hashed. Raises CoolsdError: one is missing, was changed or does not belong there."""
        return self.folder.verified()

    @cached_property
    def conditioner(self) -> Conditioner:
        """What reads prompts. Raises as `opening.load_conditioner`."""
        return opening.load_conditioner(self.verified, self.reading)

    @cached_property
    def neighbours(self) -> NDArray[np.int64] | None:
        """The nearest codes of each code, int64 [V, n]; None without them. Raises CoolsdError: not such a table."""
        return opening.load_neighbours(self.verified)

    @property
    def forced(self) -> tuple[int, ...] | None:
        """The id that each image token must have, -1 where free; None if all are free. Raises as `description`."""
        return self.description.forced

    @cached_property
    def engine(self) -> Engine:
        """The engine on its backend, loaded. Raises MissingExtra without the backend's package."""
        return opening.load_engine(self.verified, self.threads)

    def load(self) -> None:
        """Read what has not been read, the engine last. Raises as the parts do."""
        for _ in (self.conditioner, self.neighbours, self.engine):
            pass

    def settings(self, spec: Spec | None = None, *, plain: bool = False) -> Settings:
        """What the loop needs, of this engine and a spec with a request's run-time values (None: the engine's own).

        plain: decode without a draft. Raises UserError: the rule needs neighbours that the engine does not have.
        """
        return drawing.settings_of(spec or self.spec, self.neighbours, forced=self.forced, plain=plain)

    def paced(self, settings: Settings, spec: Spec) -> Settings:
        """The settings with this engine's round costs, if the spec's pacing is `auto`."""
        if spec.pacing.kind != "auto" or settings.plain:
            return settings
        return replace(settings, costs=self.costs)

    @cached_property
    def costs(self) -> CostBook:
        """The round costs of this engine on this machine, measured when they are first needed."""
        here = machine(cores.threads_for(self.threads))
        lasting = {key: here[key] for key in ("cpu", "cores", "threads", "versions")}
        return CostBook(self.manifest.fingerprint, lasting)

    def find_spec(self) -> LoadedSpec:
        """The spec's file with the weights that it was built from. Raises as `opening.find_spec`."""
        return opening.find_spec(self.folder, self.spec_file)

    def default_prompts(self) -> list[str]:
        """Prompts to try it on. Raises as `find_spec`."""
        return opening.default_prompts(self.find_spec(), self.conditioner)

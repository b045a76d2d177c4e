"""An opened engine folder: the spec, the verified files, the prompt reader, and the loaded engine.

Every command, every measurement and `coolsd_rt.Pipeline` opens an engine here, so that each of them uses all parts. A
part is read when it is first used, and only once: a value that the spec refuses is reported before any file is hashed,
and the engine is loaded only if something has to be drawn.

Knows the parts of an engine. Does not know requests or how an image is drawn.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import cores
from coolsd_rt.backends import backends
from coolsd_rt.backends.description import DATA, Description
from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.machine import machine
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine, LateEngine
from coolsd_rt.spec import LoadedSpec, Spec
from coolsd_rt.store import EngineFolder, Manifest, VerifiedEngine, open_engine
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Settings, TextBounds
from coolsd_rt.workflows.plan_book import PlanBook

if TYPE_CHECKING:
    from coolsd_rt.prompts import TextConditioner


class OpenedEngine:
    """An engine with its spec, files and prompt reader. Not safe to use from several threads.

    reading: files that read prompts instead of the spec's. threads: CPU threads of the engine; None is the usable
    cores. spec_file: the present path of the spec, if it has moved since the build.
    """

    def __init__(
        self,
        folder: EngineFolder,
        reading: opening.PromptInputs | None = None,
        threads: int | None = None,
        spec_file: Path | None = None,
    ) -> None:
        self.folder, self.reading, self.threads, self.spec_file = folder, reading, threads, spec_file
        self.later: frozenset[str] = frozenset()  # graphs that the engine loads when they are first used

    @staticmethod
    def at(
        path: str | Path,
        reading: opening.PromptInputs | None = None,
        threads: int | None = None,
        spec_file: Path | None = None,
    ) -> OpenedEngine:
        """Find the engine at `engines/NAME` or in the folder of one fingerprint. Reads only its manifest.

        Raises UserError if there is no engine, CoolsdError if its manifest is broken.
        """
        return OpenedEngine(open_engine(path), reading, threads, spec_file)

    @property
    def manifest(self) -> Manifest:
        """The engine's manifest."""
        return self.folder.manifest

    @cached_property
    def spec(self) -> Spec:
        """The spec that the engine was built from, from its manifest.

        Raises CoolsdError if this version does not accept it.
        """
        return opening.spec_of(self.folder)

    @cached_property
    def description(self) -> Description:
        """Sizes, graphs and forced tokens. Raises CoolsdError if they do not fit the spec."""
        return opening.description_of(self.folder)

    @cached_property
    def verified(self) -> VerifiedEngine:
        """The engine's files. The hash of each was checked, except for graphs, which are hashed when they are read.

        Raises CoolsdError if a file is missing, changed or unknown.
        """
        graphs = [record.file for record in self.description.graphs.values()]
        return self.folder.verified(later={*graphs, *(f"{file}{DATA}" for file in graphs)})

    @cached_property
    def conditioner(self) -> Conditioner:
        """The prompt reader. Raises as `opening.load_conditioner` does."""
        return opening.load_conditioner(self.verified, self.reading)

    @cached_property
    def neighbours(self) -> NDArray[np.int64] | None:
        """The nearest codes of each code, int64 [V, n]; None without them. Raises CoolsdError if invalid."""
        return opening.load_neighbours(self.verified)

    @property
    def forced(self) -> tuple[int, ...] | None:
        """The id that each image token must have, -1 where free; None if all are free. Raises as `description` does."""
        return self.description.forced

    @cached_property
    def engine(self) -> Engine:
        """The loaded engine. Raises MissingExtra without the backend's package."""
        return opening.load_engine(self.verified, self.threads, self.later)

    def check_backend(self) -> None:
        """Raise MissingExtra if the package that runs the engine is not installed. Imports nothing."""
        backend = backends()[self.spec.engine.backend]
        if not backend.installed:
            raise MissingExtra(backend.package, backend.extra, "running this engine")

    def load(self, later: frozenset[str] = frozenset()) -> None:
        """Read all parts that have not been read, the engine last. Raises as the parts do.

        later: graphs that are hashed and loaded when they are first used, by a request that says what it uses; the
        table of neighbours is then read when a rule needs it. Without effect on what was read before.
        """
        self.later = later
        for _ in (self.conditioner, None if later else self.neighbours, self.engine):
            pass

    def load_graph(self, name: str) -> float:
        """Load a graph that was left for later, if it was; return the seconds that it took. Raises as `load` does."""
        began = time.perf_counter()
        if name in self.later and isinstance(self.engine, LateEngine):
            self.engine.load_graph(name)
        return time.perf_counter() - began

    def settings(self, spec: Spec | None = None, *, plain: bool = False) -> Settings:
        """Return the loop's settings for this engine and a spec with a request's run-time values.

        spec: None is the engine's spec. plain: decode without a draft. Raises UserError if the rule needs neighbours
        that the engine does not have.
        """
        spec = spec or self.spec
        near = self.neighbours if spec.acceptance.rule in ("lantern", "lantern_pp") and not plain else None
        settings = drawing.settings_of(spec, near, forced=self.forced, plain=plain)
        return (
            settings
            if spec.text is None
            else replace(settings, bounds=TextBounds(self.text_reader.token_ids(spec.text.end)))
        )

    def check_draws(self) -> None:
        """Raise UserError if the engine writes text. Reads only its manifest."""
        if self.spec.writes == "text":
            expected, found = "an engine that draws images", "one that writes text"
            raise UserError(str(self.folder.folder), expected=expected, found=found, fix="name another engine")

    @property
    def text_reader(self) -> TextConditioner:
        """The prompt reader of an engine that writes text. Raises as `conditioner` does, UserError for images."""
        from coolsd_rt.prompts import TextConditioner

        reader = self.conditioner
        if not isinstance(reader, TextConditioner):
            expected, found = "an engine that writes text", "one that draws images"
            raise UserError(str(self.folder.folder), expected=expected, found=found, fix="name another engine")
        return reader

    @cached_property
    def plans(self) -> PlanBook:
        """How batches of this engine draft on this machine under pacing `auto`."""
        here = machine(cores.threads_for(self.threads))
        lasting = {key: here[key] for key in ("cpu", "cores", "threads", "versions")}
        return PlanBook(self.manifest.fingerprint, lasting)

    def find_spec(self) -> LoadedSpec:
        """Return the spec file with the weights that the engine was built from. Raises as `opening.find_spec` does."""
        return opening.find_spec(self.folder, self.spec_file)

    def default_prompts(self) -> list[str]:
        """Return prompts to try the engine with. Raises as `find_spec` does."""
        return opening.default_prompts(self.find_spec(), self.conditioner)

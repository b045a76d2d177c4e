"""`coolsd_rt.Pipeline`: draws images from prompts in a Python program.

    pipe = coolsd_rt.Pipeline.load("engines/emoji")
    pipe("red apple").images[0].save("apple.png")

Knows the arguments of a call and the order of concurrent calls. Does not know how an image is drawn
(`coolsd_rt.workflows`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from coolsd_rt.errors import UserError
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.spec import is_spec
from coolsd_rt.spec.fields import Threads, check_fields
from coolsd_rt.workflows import call_options
from coolsd_rt.workflows.call_options import Call, DrawOptions
from coolsd_rt.workflows.calls import Drawing
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.opening import PromptInputs
from coolsd_rt.workflows.results import PipelineOutput
from coolsd_rt.workflows.streaming import ImageStream
from coolsd_rt.workflows.texts import TextPart
from coolsd_rt.workflows.turns import Turns

__all__ = ["CallOptions", "Pipeline", "StreamOptions"]

OnStepEnd = Callable[["Pipeline", int, int, dict[str, Any]], object]
OnProgress = Callable[[int, int], object]


class CallOptions(DrawOptions, total=False):
    """Keyword arguments of a call: those of `DrawOptions`, and two callbacks."""

    callback_on_step_end: OnStepEnd | None
    on_progress: OnProgress | None


class StreamOptions(DrawOptions, total=False):
    """Keyword arguments of a stream: those of `DrawOptions`, and the number of partial images per image."""

    partial_images: int


@dataclass(frozen=True)
class _LoadArguments:
    """The checked arguments of `Pipeline.load`."""

    engine: Path
    threads: Threads | None = None
    features: Path | None = None
    text_encoder: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


class Pipeline:
    """A loaded engine, ready to draw. Created by `Pipeline.load`.

    Thread-safe: one call or stream draws at a time, the others wait. Also a context manager:
    `with Pipeline.load(...) as pipe` closes it at the end.
    """

    def __init__(self, opened: OpenedEngine) -> None:
        self._opened: OpenedEngine | None = opened
        self._turns = Turns()
        self._closed = False
        self._stream: weakref.ref[ImageStream] | None = None  # weak: dropping the last reference ends a stream
        self._name, self._folder = opened.manifest.name, opened.folder.folder

    @classmethod
    def load(
        cls,
        engine: str | Path,
        *,
        threads: int | None = None,
        features: str | Path | None = None,
        text_encoder: str | Path | None = None,
    ) -> Pipeline:
        """Check an engine's files and load it.

        Args:
            engine: `engines/NAME` (its current build), the folder of one fingerprint, or a spec file (.yaml),
                which is built into `engines/` first if necessary.
            threads: CPU threads of the engine. Default: the number of usable cores; a larger number is reduced
                to it with a RuntimeWarning.
            features: file of precomputed prompt features; replaces the spec's text encoder.
            text_encoder: folder of the text encoder; replaces the spec's.

        Raises:
            UserError: `engine` is not an engine, or an argument has a wrong type.
            MissingExtra: a package that the engine needs is not installed.
            CoolsdError: the engine is broken, or cannot be built.
        """
        asked = _LoadArguments(engine, threads, features, text_encoder)  # type: ignore[arg-type]  # a str becomes a Path
        path = asked.engine
        if is_spec(path):
            from coolsd_rt.workflows.promote import engine_of  # only needed to build

            path = engine_of(path)
        opened = OpenedEngine.at(path, PromptInputs(asked.features, asked.text_encoder), asked.threads)
        opened.settings()  # report errors of the spec before loading anything
        opened.load()
        return cls(opened)

    @property
    def name(self) -> str:
        """The name of the engine's spec."""
        return self._name

    @property
    def folder(self) -> Path:
        """The engine's folder, `engines/NAME/FINGERPRINT`."""
        return self._folder

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __call__(self, prompts: str | Sequence[str] = (), **options: Unpack[CallOptions]) -> PipelineOutput:
        """Draw images.

        Args:
            prompts: one text, or several.
            options: see `coolsd_rt.CallOptions`: images_per_prompt (or num_images_per_prompt), seed or seeds,
                guidance_scale, cfg_interval, temperature, top_k, top_p, schedule, acceptance, resampler, pacing,
                draft_length, plain, draft, loop. An option that is not given keeps the value of the engine's spec.
                Also:
            callback_on_step_end: called as `callback(pipeline, step, timestep, callback_kwargs)` whenever
                the loop reports progress, after each round on a CPU. step: number of earlier calls, from 0. timestep:
                image tokens decided in all images of the call. callback_kwargs: {"progress": Progress} of the images
                that are drawn now. The return value is ignored; an exception ends the call.
            on_progress: called as `on_progress(done, total)` at the same time, in image tokens of the whole call.

        Returns:
            `PipelineOutput`: `.text` of an engine that writes text, `.texts` of several; `.images` are PIL images in
            the prompts' order, all of the first prompt before those of the second; `.records` have each image's
            prompt, seed, tokens and provenance; `.stats`; `.warnings`. Images are those that `coolsd-rt generate`
            draws with the same values.

        Raises:
            UserError: a prompt cannot be read, an option is unknown, has a wrong type or is out of range, the
                pipeline is closed, or the call comes from a callback of this pipeline.
            CoolsdError: the engine failed.
        """
        given = dict(options)
        on_step, on_progress = given.pop("callback_on_step_end", None), given.pop("on_progress", None)
        call_options.check_callable("callback_on_step_end", on_step)
        call_options.check_callable("on_progress", on_progress)
        call = Call.of(prompts, given, ("callback_on_step_end", "on_progress"))
        drawing = Drawing(self._engine(), call)
        tell = _Callbacks(self, drawing, on_step, on_progress)  # type: ignore[arg-type]
        self._take()
        try:
            drawing.finish(tell if tell.wanted else None)
        finally:
            self._turns.give()
        return drawing.output()

    def stream(self, prompts: str | Sequence[str] = (), **options: Unpack[StreamOptions]) -> ImageStream:
        """Draw images and yield partial images during drawing.

        Args:
            prompts: one text, or several.
            options: as in `__call__` (see `coolsd_rt.StreamOptions`), without callbacks. Also:
            partial_images: the most partial images per image, 0 to 1000; default 3. They are spread evenly over the
                image's rows of codes. Each decodes the whole image, in addition to the loop's memory.

        Returns:
            An iterator of `PartialImage` and `FinalImage`, in the order in which images are finished. Closing it, or
                leaving a loop over it, stops the drawing. After the last event its `output` is the result that a call
                returns.

        Raises:
            UserError: as `__call__`; if a prompt cannot be read, at the first `next`.
        """
        self._engine().check_draws()
        given = dict(options)
        count = call_options.check_count("partial_images", given.pop("partial_images", 3))
        drawing = Drawing(self._engine(), Call.of(prompts, given, ("partial_images",)))
        return ImageStream(drawing, count, self._open_stream, self._close_stream)

    def stream_text(self, prompts: str | Sequence[str] = (), **options: Unpack[DrawOptions]) -> Iterator[TextPart]:
        """Write texts and yield what they gain as it comes.

        Args:
            prompts: one text, or several.
            options: as in `__call__` (see `coolsd_rt.DrawOptions`), without callbacks.

        Returns:
            An iterator of `TextPart`: `.job` says of which text, `.text` are the new characters. Closing it stops the
                writing.

        Raises:
            UserError: as `__call__`, or if the engine draws images.
        """
        opened = self._engine()
        opened.text_reader  # noqa: B018 (an engine that draws images is refused now)
        drawing = Drawing(opened, Call.of(prompts, dict(options)))
        return self._parts(drawing)

    def _parts(self, drawing: Drawing) -> Iterator[TextPart]:
        self._take()
        try:
            for event in drawing.write(parts=True):
                if isinstance(event, TextPart):
                    yield event
        finally:
            self._turns.give()

    def close(self) -> None:
        """Release the engine and its memory. Waits for a running call; closes a running stream.

        Every later call raises UserError, and so does a call that is still waiting. Closing twice has no effect.

        Raises:
            UserError: called from a callback of this pipeline, which stays open.
        """
        if self._opened is None:
            return
        before, self._closed = self._closed, True  # from now on waiting calls are refused
        try:
            if (found := self._stream) is not None and (stream := found()) is not None:
                stream.close()
            self._turns.take()
        except BaseException:  # refused, or interrupted while waiting: the engine is still open
            self._closed = before
            raise
        self._opened = None
        self._turns.give()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<coolsd_rt.Pipeline {self._name} of {self._folder}{', closed' if self.closed else ''}>"

    def _engine(self) -> OpenedEngine:
        if self._closed or self._opened is None:
            fix = f"load it again: Pipeline.load({str(self._folder)!r})"
            raise UserError("the pipeline", expected="an open pipeline", found="a closed pipeline", fix=fix)
        return self._opened

    def _take(self) -> None:
        """Wait for this call's turn. Raises UserError if the pipeline was closed meanwhile."""
        self._turns.take()
        try:
            self._engine()
        except UserError:
            self._turns.give()
            raise

    def _open_stream(self, stream: ImageStream) -> None:
        self._take()
        self._stream = weakref.ref(stream)

    def _close_stream(self) -> None:
        self._stream = None
        self._turns.give()


@dataclass
class _Callbacks:
    """The callbacks of a call."""

    pipeline: Pipeline
    drawing: Drawing
    on_step: OnStepEnd | None
    on_progress: OnProgress | None
    step: int = 0

    @property
    def wanted(self) -> bool:
        return self.on_step is not None or self.on_progress is not None

    def __call__(self, jobs: Sequence[Job], progress: Progress) -> None:
        done, total = (count * self.drawing.tokens for count in (self.drawing.done, len(self.drawing.asked)))
        done += progress.total
        if self.on_step is not None:
            self.on_step(self.pipeline, self.step, done, {"progress": progress})
            self.step += 1
        if self.on_progress is not None:
            self.on_progress(done, total)

"""An iterator over the partial images of a call, and each final image as soon as it is finished.

The loop reports progress with a callback, while an iterator is asked for its next item. A stream therefore draws in a
separate thread, at most one event ahead of the consumer, and ends that thread when it is exhausted, closed or dropped.

Knows threads and events. Does not know how an image is drawn.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from PIL import Image

from coolsd_rt.errors import UserError
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.workflows.calls import Drawing
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.handoff import Cancelled, Handoff
from coolsd_rt.workflows.partial_images import CodeGrid, PartialImages
from coolsd_rt.workflows.results import ImageRecord, PipelineOutput


@dataclass(frozen=True, eq=False)
class PartialImage:
    """An image that is not finished yet.

    Attributes:
        image: RGB, F x F pixels: the finished rows of codes decoded, white below them. Pixels differ slightly from the
            final image's, most near the boundary, since the decoder's receptive field reaches across it.
        index: position in the call, from 0.
        prompt: the text that the image is drawn from.
        seed: seed of its random numbers.
        rows: number of finished rows of codes, at least 1.
        total_rows: rows of codes of an image; the top `rows / total_rows` of the pixels are drawn.
    """

    image: Image.Image = field(repr=False)
    index: int
    prompt: str
    seed: int
    rows: int
    total_rows: int


@dataclass(frozen=True, eq=False)
class FinalImage:
    """A finished image.

    Attributes:
        record: the image with its prompt, seed, tokens and provenance, as in `PipelineOutput.records`.
    """

    record: ImageRecord

    @property
    def image(self) -> Image.Image:
        """RGB, F x F pixels."""
        return self.record.image

    @property
    def index(self) -> int:
        """Position in the call, from 0."""
        return self.record.index


StreamEvent = PartialImage | FinalImage


class ImageStream(Iterator[StreamEvent]):
    """Iterator over the events of a call, and a context manager that closes it. Created by `Pipeline.stream`.

    Drawing starts with the first `next`. From then on the stream owns the pipeline until it is exhausted, closed or
    dropped (leaving a `for` loop by `break` drops a stream that has no other reference).
    """

    def __init__(
        self, drawing: Drawing, partial_images: int, take: Callable[[ImageStream], None], give: Callable[[], None]
    ) -> None:
        """take: waits for exclusive use of the pipeline, or raises. give: ends that use."""
        self._drawing, self._take, self._give = drawing, take, give
        self._output: PipelineOutput | None = None
        self._events: Handoff[StreamEvent] = Handoff()
        work = _Worker(drawing, partial_images, self._events)
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(work.run,), name="coolsd-rt-stream", daemon=True)
        self._ending = threading.Lock()
        self._state = "new"  # later "open", then "finished" or "closed"

    def __next__(self) -> StreamEvent:
        """Return the next event. Raises StopIteration after the last one, and any error of drawing."""
        if self._state == "new":
            self._take(self)
            self._state = "open"
            self._thread.start()
        if self._state != "open":
            raise StopIteration
        try:
            return self._events.get()
        except StopIteration:
            self._end("finished")
            if self._output is None:  # another thread has closed the stream or its pipeline
                raise UserError(
                    "the stream", expected="an open stream", found="a stream that was closed while it was read"
                ) from None
            raise
        except BaseException:  # includes KeyboardInterrupt
            self.close()
            raise

    @property
    def output(self) -> PipelineOutput:
        """All images and figures, as a plain call returns them. Raises UserError before the last event is taken."""
        if self._output is None:
            found = "one that was closed early" if self._state == "closed" else "one with events to come"
            raise UserError("the stream", expected="an exhausted stream", found=found)
        return self._output

    def close(self) -> None:
        """Stop drawing, at the latest at the end of the current round. Has no effect on a stream that has ended."""
        self._end("closed")

    def _end(self, state: str) -> None:
        with self._ending:
            if self._state == "new":
                self._state = state
            if self._state != "open":
                return
            self._state = state
            self._events.cancel()
            if self._thread is not threading.current_thread():
                self._thread.join()
            if state == "finished":
                self._output = self._drawing.output()
            del self._drawing, self._thread  # this frees the engine if the pipeline is closed
            self._give()

    def __enter__(self) -> ImageStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_state", "new") == "open":
            self.close()


class _Worker:
    """Draws in the stream's thread. Holds no reference to the stream, which can be dropped meanwhile."""

    def __init__(self, drawing: Drawing, partial_images: int, events: Handoff[StreamEvent]) -> None:
        self._drawing, self._events = drawing, events
        self._opened = drawing.prepared.opened
        self._grid = CodeGrid(self._opened.description)
        self._partial = PartialImages(self._grid, partial_images)

    def run(self) -> None:
        """Draw until all images are finished or the consumer stops."""
        try:
            for record in self._drawing.run(self._progress):
                self._events.put(FinalImage(record))
        except Cancelled:
            self._events.end()
        except BaseException as error:  # raised in the consumer's thread
            self._events.end(error)
        else:
            self._events.end()

    def _progress(self, jobs: Sequence[Job], progress: Progress) -> None:
        self._events.check()
        due = self._partial.due([job.index for job in jobs], progress.decided)
        if not len(due):
            return
        decided = np.asarray(progress.decided)[due]
        codes = self._grid.filled(np.asarray(progress.codes())[due], decided)
        decoded = np.asarray(self._opened.engine.decode_images(codes))
        for place, pixels, rows in zip(due.tolist(), decoded, self._grid.finished(decided).tolist(), strict=True):
            job, shown = jobs[place], Image.fromarray(self._grid.blanked(pixels, rows))
            self._events.put(PartialImage(shown, job.index, job.prompt, job.seed, rows, self._grid.rows))

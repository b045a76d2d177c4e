"""How far a long verb is: lines without a terminal, a bar that fits one of any width, and the time that is left."""

from __future__ import annotations

import io
import math
import sys

import pytest

from coolsd_rt.cli.terminal import progress as module
from coolsd_rt.cli.terminal.bar import Bar
from coolsd_rt.cli.terminal.progress import batches, duration, progress
from tests.cli.terminal.conftest import OnTerminal, frames


class Clock:
    """Seconds, as a test sets them, for rich's speed and for our lines."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "EVERY", 10.0)
    monkeypatch.setattr("coolsd_rt.cli.terminal.progress.monotonic", made.monotonic)
    original = Bar.__init__

    def with_clock(self: Bar, *args: object, **more: object) -> None:
        original(self, *args, get_time=made.monotonic, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Bar, "__init__", with_clock)
    return made


def run(clock: Clock, steps: int, seconds: float, **how: bool) -> None:
    with progress() as work:
        work.start("parity", steps, "images", **how)
        for done in range(1, steps + 1):
            clock.now += seconds
            work.update(done)


def test_lines_come_at_most_every_ten_seconds_with_the_rest(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 32, 1.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "parity: 32 images",
        "parity: 10 of 32 images, about 22 s left",
        "parity: 20 of 32 images, about 12 s left",
        "parity: 30 of 32 images, about 2 s left",
        "parity: 32 of 32 images",
    ]


def test_slow_steps_have_a_line_each(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 3, 7200.0)
    assert capsys.readouterr().err.splitlines() == [
        "parity: 3 images",
        "parity: 1 of 3 images, about 4 h 0 min left",
        "parity: 2 of 3 images, about 2 h 0 min left",
        "parity: 3 of 3 images",
    ]


def test_what_is_soon_over_is_not_announced(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 3, 1.0, announce=False)
    assert capsys.readouterr().err == ""


def test_uneven_steps_promise_no_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 3, 20.0, timed=False)
    assert "left" not in capsys.readouterr().err


def test_a_size_that_comes_later_is_said_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with batches("recording", quiet=False) as on_batch:
        on_batch(0, 2)
        on_batch(1, 2)
        on_batch(2, 2)
    assert capsys.readouterr().err.splitlines() == ["recording: 2 batches", "recording: 2 of 2 batches"]


def test_stages_names_and_figures(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as work:
        work.advance()  # before any stage: nothing to say, no failure
        work.start("a\x1b", 1, "x")
        clock.now += 60
        work.update(0, what="b\x1b", figures="c\x1b")
        work.start("d", unit="y")
        work.update(what="e")
    assert capsys.readouterr().err.splitlines() == ["a\\x1b: 1 x", "b\\x1b: 0 of 1 x, c\\x1b"]


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as work:
        work.start("x", 1)
        clock.now += 100
        work.update(1)
        assert not work.plain
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_any_stream_will_do(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress() as work:
        work.start("x", 1)
        work.update(1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7800, "2 h 10 min"), (360_000, "100 h 0 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


CODE = """
import time
from coolsd_rt.cli.terminal import note
from coolsd_rt.cli.terminal.progress import progress
with progress() as work:
    work.start("building: target, timing kernels 12 of 300", 3328, "images", timed=True)
    for done in range(0, 3329, 416):
        work.update(done, figures="accept length 2.04, acceptance 0.81")
        work._bar.refresh()
        time.sleep(0.01)
    note("a note of ours")
"""


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120, 200])
def test_a_bar_fits_its_terminal(on_terminal: OnTerminal, width: int) -> None:
    """No line wraps, no word is cut, how many are done is always there, and what we say stays readable."""
    said = frames(on_terminal(CODE, width))
    drawn = [line for line in said if "/3328" in line]
    assert len(drawn) >= 9
    assert all(len(line) < width for line in drawn)
    names = {"building:", "target,", "timing", "kernels", "12", "of", "300"}
    known = names | {f"{name.rstrip(':,')}…" for name in names}
    known |= {"accept", "length", "2.04,", "acceptance", "0.81", "left", "min", "h", "s", *"0123"}
    for line in drawn:
        words = [word for word in line.split() if "/3328" not in word and not set(word) <= set("━╸╺")]
        assert set(words) <= known, line
    assert ("acceptance 0.81" in drawn[-1]) is (width >= 120)
    assert any("━" in line for line in drawn) is (width >= 80)
    assert "a note of ours" in said


def test_a_bar_on_a_dumb_terminal_is_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as work:
        work.start("x", 2, "images")
    assert capsys.readouterr().err == "x: 2 images\n"


def test_no_speed_is_no_promise(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 2, math.ulp(0.0))
    assert "left" not in capsys.readouterr().err

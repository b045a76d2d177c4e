"""Valid documents with one thing wrong, and the check that whatever reads them ends in an error of ours.

    @fuzz(500)
    @given(mutant=mutated(document))
    def test_what_reads_it(path, mutant):
        path.write_bytes(mutant.text)
        refused = survives(lambda: read(path))

`mutated` changes one place of a JSON document: its value, its key, its list. `mutated_text` changes the text: what no
JSON writer would write. Every change of a document has a number, so a few draws are cheap and all of them can be listed
(`changes`). Knows JSON. Does not know what documents mean.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from coolsd_rt.errors import CoolsdError

Place = tuple[str | int, ...]
BRACKETS = 100_000
CPU_SECONDS, SECONDS, MIB = 10.0, 120.0, 1 << 20

try:
    import resource
except ImportError:  # pragma: no cover (Windows)
    resource = None  # type: ignore[assignment]


class _Raw(str):
    """Text that stands in JSON as it is, without quotes."""


class _Twin(str):
    """A key that a dict takes beside an equal one."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


VALUES: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "minus one": -1,
    "a number as text": "1",
    "a fraction": 0.5,
    "a whole float": 1.0,
    "10^9": 10**9,
    "10^30": 10**30,
    "-10^30": -(10**30),
    "1e308": 1e308,
    "1e400": _Raw("1e400"),
    "NaN": _Raw("NaN"),
    "-Infinity": _Raw("-Infinity"),
    "5000 digits": _Raw("9" * 5000),
    "no text": "",
    "a word": "word",
    "long text": "x" * 100_000,
    "control characters": "a\x1b]0;b\x07\r\n\x00",
    "half a pair": "\ud800",
    "a path out": "../../../etc/passwd",
    "an absolute path": "/dev/zero",
    "no list": [],
    "a list": [1, "two"],
    "no mapping": {},
    "a mapping": {"word": 1},
    "100 levels": _nested(100),
    "60 levels": _nested(60),
    "a long list": [0] * 10_000,
}
KEYS: Mapping[str, Callable[[str], str]] = {
    "renamed": lambda key: key + "x",
    "upper case": lambda key: key.swapcase(),
    "no key": lambda key: "",
    "a path": lambda key: "../" + key,
    "control characters": lambda key: key + "\x1b[2J",
    "half a pair": lambda key: key + "\udfff",
    "long": lambda key: key + "x" * 10_000,
}
LISTS: Mapping[str, Callable[[list[Any]], list[Any]]] = {
    "emptied": lambda items: [],
    "reversed": lambda items: items[::-1],
    "turned": lambda items: [*items[1:], *items[:1]],
    "one less": lambda items: items[:-1],
    "one twice": lambda items: [*items[:1], *items],
    "grown": lambda items: (items or [0]) * 1000,
    "one of another kind": lambda items: [*items, None],
}


@dataclass(frozen=True)
class Mutant:
    """A document with one change. what: "contract.dims.tokens: 10^30". text: JSON, in UTF-8."""

    what: str
    data: Any

    @property
    def text(self) -> bytes:
        return dump(self.data)

    def __repr__(self) -> str:
        return f"<{self.what}>"


def dump(data: Any) -> bytes:
    """JSON, with what a mutation put there that no JSON writer writes."""
    raws: list[str] = []

    def found(value: Any) -> Any:
        if isinstance(value, _Raw):
            raws.append(value)
            return f"<raw {len(raws) - 1}>"
        if isinstance(value, dict):
            return {key: found(v) for key, v in value.items()}
        return [found(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(found(data))
    for n, raw in enumerate(raws):
        text = text.replace(f'"<raw {n}>"', raw)
    return text.encode()


def places(data: Any, most: int = 40, here: Place = ()) -> Iterator[Place]:
    """Every place of a document, the whole first; of a list's items the first `most`."""
    yield here
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, most, (*here, key))
    elif isinstance(data, list):
        for n, value in enumerate(data[:most]):
            yield from places(value, most, (*here, n))


def changed(data: Any, place: Place, change: Callable[[Any], Any]) -> Any:
    """A copy of a document with one place changed. What is not on the way to it is shared with the original."""
    if not place:
        return change(data)
    copy = data.copy()
    copy[place[0]] = changed(data[place[0]], place[1:], change)
    return copy


def _always(new: Any) -> Callable[[Any], Any]:
    return lambda _: new


def _without(key: str | int) -> Callable[[Any], Any]:
    def change(parent: Any) -> Any:
        copy = parent.copy()
        del copy[key]
        return copy

    return change


def _rekeyed(key: str, name: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda parent: {name(k) if k == key else k: v for k, v in parent.items()}


def _twice(key: str, value: Any) -> Callable[[Any], Any]:
    return lambda parent: {**parent, _Twin(key): value}


def changes(document: Any, within: Place = ()) -> Sequence[tuple[str, Place, Callable[[Any], Any]]]:
    """Every change of a document, as (what, place, change of the value there). within: only below that place."""
    part = document
    for key in within:
        part = part[key]
    made: list[tuple[str, Place, Callable[[Any], Any]]] = []
    for place in places(part, here=()):
        value, above = part, None
        for key in place:
            above, value = value, value[key]
        full = (*within, *place)
        name = ".".join(map(str, full)) or "all"
        made += [(f"{name}: {what}", full, _always(new)) for what, new in VALUES.items()]
        if isinstance(value, list):
            made += [(f"{name}: list {what}", full, change) for what, change in LISTS.items()]
        if above is None:
            continue
        last = full[-1]
        made.append((f"{name}: removed", full[:-1], _without(last)))
        if isinstance(last, str):
            made += [(f"{name}: key {what}", full[:-1], _rekeyed(last, new)) for what, new in KEYS.items()]
            made += [
                (f"{name}: twice", full[:-1], _twice(last, value)),
                (f"{name}: twice, the second null", full[:-1], _twice(last, None)),
            ]
    return made


def mutated(document: Any, within: Place = ()) -> st.SearchStrategy[Mutant]:
    """The document with exactly one change, at any place (`within`: at or below that one).

    The document must not change: what can be done to it is listed once.
    """
    key = (id(document), within)
    if key not in _LISTED:
        _LISTED[key] = (document, _strategy(document, within))
    return _LISTED[key][1]


_LISTED: dict[tuple[int, Place], tuple[Any, st.SearchStrategy[Mutant]]] = {}
"""With the document itself, so that no other takes its id."""


def _strategy(document: Any, within: Place) -> st.SearchStrategy[Mutant]:
    made = changes(document, within)

    def build(n: int) -> Mutant:
        what, place, change = made[n]
        return Mutant(what, changed(document, place, change))

    return st.integers(0, len(made) - 1).map(build)


_NUMBER = re.compile(rb"(?<![\w.\"-])-?[0-9]+(?:\.[0-9]+)?(?![\w.\"])")


def deep_texts(brackets: int) -> list[bytes]:
    """Brackets so many deep: of lists and of mappings, open and closed."""
    return [b"[" * brackets, b'{"a":' * brackets, b"[" * brackets + b"]" * brackets, b"{" * brackets]


@functools.cache
def mutated_text(text: str | bytes, brackets: int = BRACKETS) -> st.SearchStrategy[bytes]:
    """The text with exactly one change: cut, brackets so many deep, a number that is none, flipped or foreign bytes."""
    raw = text.encode() if isinstance(text, str) else text
    numbers = [found.span() for found in _NUMBER.finditer(raw)] or [(len(raw), len(raw))]
    spot = st.integers(0, max(0, len(raw) - 1))

    def put(at: int, what: bytes) -> bytes:
        return raw[:at] + what + raw[at:]

    def replaced(span: tuple[int, int], what: bytes) -> bytes:
        return raw[: span[0]] + what + raw[span[1] :]

    def flipped(at: int, mask: int) -> bytes:
        return raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :] if raw else bytes([mask])

    deep = deep_texts(brackets)
    words = [b"1e400", b"-1e400", b"NaN", b"Infinity", b"9" * 5000, b"0x10", b"01", b"1_000", b"--1", b"1e", b"[[1]]"]
    foreign = [b"\xff", b"\x00", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\\ud800", b"\x1b[2J", b"\r", b",", b'"']
    return st.one_of(
        spot.map(lambda at: raw[:at]),
        spot.map(lambda at: raw[at:]),
        st.builds(put, spot, st.sampled_from(deep)),
        st.sampled_from(deep),
        st.builds(replaced, st.sampled_from(numbers), st.sampled_from(words + deep)),
        st.builds(flipped, spot, st.integers(1, 255)),
        st.builds(put, spot, st.sampled_from(foreign)),
        st.sampled_from(
            [b"", raw + raw, b"\xef\xbb\xbf" + raw, raw.decode("latin-1").encode("utf-16"), b"\x00" * 4096]
        ),
    )


def fuzz(examples: int) -> settings:
    """Settings of a fuzz test: so many examples, fixtures shared by all of them, no line-by-line trace of a failure,
    which would take longer than what it explains."""
    phases = set(Phase) - {Phase.explain}
    return settings(max_examples=examples, phases=phases, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Overtime(BaseException):
    """The call did not end. Not an Exception: nothing that is called may catch it."""


@contextlib.contextmanager
def _no_longer_than(cpu: float, wall: float) -> Iterator[None]:
    """Raise Overtime in the call after so many seconds of this process' own work, or of waiting."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Overtime(f"no end in {cpu} s of work or {wall} s of waiting")

    pairs = ((signal.SIGPROF, signal.ITIMER_PROF, cpu), (signal.SIGALRM, signal.ITIMER_REAL, wall))
    before = [signal.signal(number, stop) for number, _, _ in pairs]
    for _, timer, seconds in pairs:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(pairs, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_more_than(extra: int) -> Iterator[None]:
    """Let the system refuse what is far above the bound, before the machine is full."""
    if resource is None or not sys.platform.startswith("linux"):
        yield
        return
    with open("/proc/self/statm", encoding="ascii") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


_PYTHON = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b|Traceback|unexpected")


def survives(
    call: Callable[[], object], *, most: int = 64 * MIB, cpu: float = CPU_SECONDS, wall: float = SECONDS
) -> CoolsdError | None:
    """Run what reads a mutant. It may succeed (None), or raise an error of ours, which is returned.

    most: bytes that it may hold at once, above what there was. The message has one side at least, names no class of
    Python and is short. Raises AssertionError, or whatever else the call raised.
    """
    error = None
    tracemalloc.start()
    try:
        with _no_longer_than(cpu, wall), _no_more_than(most + 2048 * MIB):
            try:
                call()
            except CoolsdError as e:
                error = e
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"{peak / MIB:.0f} MiB at once"
    if error is not None:
        assert error.expected or error.found, f"nothing expected, nothing found: {error}"
        assert not _PYTHON.search(str(error)), f"Python's words: {error}"
        assert len(str(error)) < 2000, f"{len(str(error))} characters: {str(error)[:300]}"
    return error

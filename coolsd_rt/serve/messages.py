"""Messages between the HTTP process and an engine's process, and how they travel: JSON, then raw bytes of pixels.

A message on the wire is the length of its JSON text (4 bytes), the text, and the pixels of an image, if it has any. Its
own length goes before it (`multiprocessing.connection`). Nothing is pickled.

Knows what the processes tell each other. Does not know how an image is drawn or a text written, or who asked for it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any

LARGEST = 1 << 30  # bytes of a message: an image of 16,384 x 16,384 pixels has fewer
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Setup:
    """The first message to an engine's process: what it has to open. files: the SHA-256 of each file by its name."""

    folder: str
    fingerprint: str
    files: Mapping[str, str]
    slots: int
    threads: int | None


@dataclass(frozen=True)
class DrawMessage:
    """Draw one image. options: as for `Call.of`. partial_images: how many to show. progress: whether to tell it."""

    ticket: int
    prompt: str
    options: Mapping[str, Any]
    partial_images: int = 0
    progress: bool = False


Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""What a text follows: a text, its token ids, or the messages of a chat."""


@dataclass(frozen=True)
class WriteMessage:
    """Write one text. options: as for `Call.of`. stop: strings that end it. parts: whether to tell it as it comes."""

    ticket: int
    prompt: Prompt
    options: Mapping[str, Any]
    stop: Sequence[str] = ()
    parts: bool = False


@dataclass(frozen=True)
class CancelMessage:
    """Nobody waits for this image or text any more."""

    ticket: int


@dataclass(frozen=True)
class StopMessage:
    """End the process."""


@dataclass(frozen=True)
class NoteMessage:
    """A line for the log."""

    text: str


@dataclass(frozen=True)
class ReadyMessage:
    """The engine is loaded. samples: prompts to try it with."""

    samples: Sequence[str]


@dataclass(frozen=True)
class StartFailedMessage:
    """The engine cannot be loaded; the process ends. Parts of a `CoolsdError`, and its exit code."""

    what: str
    expected: str
    found: str
    fix: str
    exit_code: int


@dataclass(frozen=True)
class StartedMessage:
    """The image or text has a slot and its first tokens."""

    ticket: int


@dataclass(frozen=True)
class ProgressMessage:
    """decided: image tokens so far. accepted, num_drafts: of the rounds since the last message of the image."""

    ticket: int
    decided: int
    accepted: Sequence[int]
    num_drafts: Sequence[int]
    seconds: float


@dataclass(frozen=True)
class PartialMessage:
    """An unfinished image: its first `rows` rows of codes. pixels: RGB uint8 of `side` x `side`."""

    ticket: int
    rows: int
    side: int
    pixels: bytes


@dataclass(frozen=True)
class FinalMessage:
    """A finished image. figures: as the answer has them. text_tokens: of the prompt. pixels: as in PartialMessage."""

    ticket: int
    figures: Mapping[str, Any]
    provenance: Mapping[str, Any]
    warnings: Sequence[str]
    text_tokens: int
    side: int
    pixels: bytes


@dataclass(frozen=True)
class GainedMessage:
    """What a text that is being written gained: whole characters, at the end of what came before."""

    ticket: int
    text: str


@dataclass(frozen=True)
class WrittenMessage:
    """A finished text. reason: why it ended, stop or length. figures, warnings: as in FinalMessage."""

    ticket: int
    figures: Mapping[str, Any]
    warnings: Sequence[str]
    prompt_tokens: int
    text: str
    reason: str


@dataclass(frozen=True)
class RefusedMessage:
    """The image or text cannot be made as asked: what was expected, found, and what to do. Safe to show to a client."""

    ticket: int
    what: str
    expected: str
    found: str
    fix: str


@dataclass(frozen=True)
class FailedMessage:
    """The image or text could not be made, for a reason that is no client's business."""

    ticket: int


ToEngine = Setup | DrawMessage | WriteMessage | CancelMessage | StopMessage
Lost = RefusedMessage | FailedMessage
OfImage = StartedMessage | ProgressMessage | PartialMessage | FinalMessage | Lost
OfText = StartedMessage | GainedMessage | WrittenMessage | Lost
OfOrder = OfImage | OfText
FromEngine = NoteMessage | ReadyMessage | StartFailedMessage | OfOrder
Message = ToEngine | FromEngine

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Setup,
        DrawMessage,
        WriteMessage,
        CancelMessage,
        StopMessage,
        NoteMessage,
        ReadyMessage,
        StartFailedMessage,
        StartedMessage,
        ProgressMessage,
        PartialMessage,
        FinalMessage,
        GainedMessage,
        WrittenMessage,
        RefusedMessage,
        FailedMessage,
    )
}
LAST = (FinalMessage, WrittenMessage, RefusedMessage, FailedMessage)
"""The messages after which there are no more of an image or a text."""


def pack(message: Message) -> bytes:
    """Return a message as bytes. Raises ValueError for a number that JSON does not have."""
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    pixels = values.pop("pixels", b"")
    text = json.dumps({"kind": type(message).__name__, **values}, allow_nan=False).encode()
    return b"".join((_LENGTH.pack(len(text)), text, pixels))


def unpack(data: bytes) -> Message:
    """Return the message of `pack`'s bytes."""
    (length,) = _LENGTH.unpack_from(data)
    values = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    kind = _KINDS[values.pop("kind")]
    if kind in (PartialMessage, FinalMessage):
        values["pixels"] = data[_LENGTH.size + length :]
    message: Message = kind(**values)
    return message


def send(connection: Connection, message: Message) -> None:
    """Send a message. Waits while the other side does not read. Raises OSError if there is no other side."""
    connection.send_bytes(pack(message))


def receive(connection: Connection) -> Message:
    """Wait for the next message. Raises EOFError or OSError if there is no other side."""
    return unpack(connection.recv_bytes(LARGEST))

"""Text that a terminal shows as it is: characters that command a terminal become visible escapes.

Knows Unicode's control characters. Does not know where a text goes.
"""

from __future__ import annotations

import re

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_COMMANDS = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: escape sequences, bells, carriage returns
    "\u2028\u2029"  # line and paragraph separator
    "\u202a-\u202e\u2066-\u2069"  # bidirectional controls: they reorder what stands around them
    "\ud800-\udfff"  # lone surrogates, as in a file name that is not UTF-8: no stream can encode them
    "]"
)


def visible(text: object) -> str:
    """One line of text: each control character as its escape, `\\x1b` for ESC, and all else as it is.

    A newline is one of them, since whoever calls this promises a line. A backslash stays one backslash: paths of
    Windows have them.
    """
    return _COMMANDS.sub(_escape, str(text))


def visible_text(text: str) -> str:
    """A text of several lines: newlines and tabs as they are, each other control character as its escape."""
    return _COMMANDS.sub(lambda found: found.group() if found.group() in "\n\t" else _escape(found), text)


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def fit(text: str, width: int) -> str:
    """The text in at most `width` characters: whole words from its beginning, then `…`; no word is cut."""
    if len(text) <= width:
        return text
    cut = text[: max(0, text.rfind(" ", 0, max(0, width)))].rstrip(" :,")
    return f"{cut}…" if cut else ""

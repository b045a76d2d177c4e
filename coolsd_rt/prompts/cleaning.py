"""Cleans captions as they were cleaned for LlamaGen's text encoder in training.

Implements the published description (DeepFloyd's cleaning, which LlamaGen applies twice). Ordinary captions stay
unchanged. Differences from the published pipeline: mis-decoded text (mojibake), which that pipeline repairs with ftfy,
is left as it is, and fewer forms of broken HTML are recognised. The result is the same on every machine, since
precomputed features are looked up by the cleaned caption.

Knows strings. Does not know tokenizers.
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote_plus

_FILES = "png|jpe?g|bmp|webp|eps|pdf|apk|mp4"
_DOMAINS = "com|co|ru|net|org|edu|gov|it"
_DASHES = "-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0" + (
    "\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_QUOTES, _APOSTROPHES = "`\u00b4\u00ab\u00bb\u201c\u201d\u00a8", "\u2018\u2019"
_TIMES = "x\u0445\u00d7"  # the letter x, a similar Cyrillic letter, the multiplication sign
_NUMBER = r"\d+\.?\d*"

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), into) for pattern, into in pairs)


_MARKUP = _rules(
    (r"<person>", "person"),
    (rf"\b(?:https?:/{{0,3}}|www:/{{1,3}})?[a-z0-9.\-]+\.(?:{_DOMAINS})[\w/\-]*", ""),  # addresses
    (r"\bhttps?:/{1,3}", ""),
    (r"<[a-z/!][^<>]*>", ""),  # tags
)
_SIGNS = _rules(
    (r"@\w+\b", ""),  # nicknames
    ("[\u31c0-\u9fff]+", ""),  # CJK: the encoder has no tokens for it
    (f"[{_DASHES}]+", "-"),
    (f"[{_QUOTES}]", '"'),
    (f"[{_APOSTROPHES}]", "'"),
    (r"&quot;?|&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#(?:\d{1,3}|\d{5,})\b", ""),  # running numbers
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{_FILES})", ""),
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
_JOINTS = re.compile("[-_]")
_CODES = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # ab1234
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # ab12cd
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 12ab34
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_FILES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    (rf"\b{_NUMBER}[{_TIMES}]{_NUMBER}\b", ""),  # sizes
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
_ENDS = _rules(
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean(caption: str) -> str:
    """Return the cleaned caption. It is empty if nothing of the caption is text."""
    return _once(_once(caption))


def _once(text: str) -> str:
    text = unquote_plus(text).strip().lower()
    text = _apply(_MARKUP, text)
    text = _apply(_SIGNS, html.unescape(text))
    if len(_JOINTS.findall(text)) > 3:  # a name such as this-is-my-cute-cat
        text = _JOINTS.sub(" ", text)
    text = html.unescape(html.unescape(_readable(text))).strip()
    return _apply(_ENDS, _apply(_CODES, text)).strip()


def _readable(text: str) -> str:
    """Compose letters, replace ligatures and full-width forms, and remove control characters."""
    plain = (
        unicodedata.normalize("NFKC", c) if "\ufb00" <= c <= "\ufb06" or "\uff01" <= c <= "\uff5e" else c
        for c in unicodedata.normalize("NFC", text)
    )
    return "".join(c for c in "".join(plain) if c in "\n\t" or unicodedata.category(c) != "Cc")


def _apply(rules: Rules, text: str) -> str:
    for pattern, into in rules:
        text = pattern.sub(into, text)
    return text

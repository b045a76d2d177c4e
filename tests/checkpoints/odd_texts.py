"""Texts in which tokenizers differ: scripts, code, emoji, digits, whitespace, control characters, combining marks."""

from __future__ import annotations

import random

_WORDS = (
    "The quick brown fox don't I'LL we've it's", "naïve façade Übergröße œuvre", "今天天气很好、我们去公园吧。",
    "東京タワー カタカナ ひらがな", "مرحبا بالعالم ١٢٣٤٥", "नमस्ते दुनिया १२३", "Привет, мир", "안녕하세요 세계",
    "שלום עולם", "สวัสดีชาวโลก",
)  # fmt: skip
_CODE = (
    "def f(x: int) -> str:\n    return f'{x:>08.3f}'\n", "for (int i=0;i<10;++i){ a[i]+=0x1F; }",
    "SELECT * FROM t WHERE a>=1;", '<div class="a">&nbsp;</div>', "#!/bin/sh\n\tls -la | grep '^d' && echo $?",
    'fn main() { println!("{}", 1_000); }',
)  # fmt: skip
_EMOJI = ("😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "✈️", "👍🏽", "1️⃣", "©®™")
_DIGITS = ("0", "7", "42", "2024", "3.14159", "1,000,000", "²³", "½", "Ⅻ", "①②", "٣", "1st", "v2.0.1")
_SPACES = (" ", "  ", "   \n", "\t\t", "\r\n", "\n\n\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", " \t ")
_CONTROL = ("\x00", "\x01", "\x1b[0m", "\x7f", "\u0085", "\ufeff", "\u200d", "\u202e", "\ufffd")
_MARKS = ("\u0301", "\u0308\u0323", "e\u0301", "\u0e31", "\u093f", "\u20dd", "\ufe0f")
_SCRAPS = ("'s", "'S", "'", '"', "...", "—", "_", "\\", "$", "`", "<|", "|>", "<|im_start", "�")


def odd_texts(count: int = 1000, seed: int = 20, special: tuple[str, ...] = ()) -> list[str]:
    """Return texts of a few pieces each. special: tokens that stand for themselves, which some texts have."""
    rng = random.Random(seed)
    kinds = (_WORDS, _WORDS, _CODE, _EMOJI, _DIGITS, _DIGITS, _SPACES, _SPACES, _CONTROL, _MARKS, _SCRAPS)
    ranges = ((32, 0x250), (0x250, 0xD800), (0xE000, 0x1FB00))

    def piece() -> str:
        if rng.random() < 0.1:
            return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(4))
        text = rng.choice(rng.choice((*kinds, special or _SCRAPS)))
        return text[rng.randrange(len(text)) if rng.random() < 0.3 else 0 :]

    return ["", *("".join(piece() for _ in range(rng.randint(1, 8))) for _ in range(count - 1))]

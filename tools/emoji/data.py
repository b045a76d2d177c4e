"""The demo's images: Noto Color Emoji glyphs as 64x64 RGBA, their captions, and the training's jitter.

Knows the font and augmentation. Does not know tokens or models.
"""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

SIDE = 64
COUNT = 512  # glyphs that the target is trained on
GLYPH_WIDTH = 60
SHIFT = 1  # pixels, each way
SHIFTED = 0.4  # share of images that are shifted
FLIP = 0.2  # share of images mirrored, where mirroring keeps the caption true
FONT_NAMES = ("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",)

# A mirrored glyph of these would contradict its caption (direction) or show mirrored writing.
_ONE_WAY = re.compile(
    r"\b(left|right|leftwards|rightwards|letter|squared|symbol|sign|mark|clock|digit|keycap|moon|input|arrow|"
    r"anticlockwise|clockwise|hundred|abcd|numbers|calendar|ideograph|japanese|post|spiral|card|memo|book|newspaper)\b"
)
# Families of near-identical glyphs, and glyphs that are only writing: nothing to draw.
_LEFT_OUT = re.compile(
    r"regional indicator|clock face|squared|ideograph|fitzpatrick|component|input symbol|variation|"
    r"zodiac|^(aries|taurus|gemini|cancer|leo|virgo|libra|scorpius|sagittarius|capricorn|aquarius|pisces|ophiuchus)$|"
    r"trigram|mahjong|digit|keycap|tag |letter|japanese|black chess|new moon symbol$|with .* arrow above|"
    r"medium|small square|large (orange|yellow|green|purple|brown|blue|red) (circle|square)|"
    r"double exclamation|exclamation question|copyright|registered|trade mark|information source"
)

# fmt: off
_FAVOURITES = frozenset({
    "red apple", "green apple", "banana", "lemon", "strawberry", "cherries", "watermelon", "pear", "peach",
    "grapes", "tomato", "avocado", "pineapple", "slice of pizza", "hamburger", "doughnut", "cookie",
    "birthday cake", "soft ice cream", "bread", "french fries", "hot beverage", "beer mug",
    "smiling face with sunglasses", "face with tears of joy", "grinning face",
    "smiling face with heart shaped eyes", "cat face", "dog face", "fox face", "panda face", "frog face",
    "tiger face", "lion face", "pig face", "unicorn face", "monkey face", "octopus", "tropical fish",
    "spouting whale", "penguin", "lady beetle", "snail", "turtle", "butterfly", "honeybee", "rocket", "airplane",
    "automobile", "bicycle", "sailboat", "fire", "rainbow", "sunflower", "tulip", "rose", "cactus", "mushroom",
    "evergreen tree", "heavy black heart", "glowing star", "full moon with face", "sun with face", "snowman",
    "umbrella with rain drops", "jack o lantern", "wrapped present", "balloon", "guitar", "soccer ball",
    "basketball and hoop", "top hat", "crown", "gem stone", "alarm clock", "ghost", "extraterrestrial alien",
    "robot face", "pile of poo", "skull", "house building", "light bulb", "key", "books",
})
# fmt: on
_DISTINCT = 0.14


@dataclass(frozen=True)
class Glyphs:
    """Images uint8 [N, 64, 64, 4] (straight alpha) and one caption each."""

    rgba: npt.NDArray[np.uint8]
    captions: tuple[str, ...]


def find_font(explicit: str | None = None) -> Path:
    """The font's path; FileNotFoundError says how to install it."""
    for name in (explicit,) if explicit else FONT_NAMES:
        if Path(name).is_file():
            return Path(name)
    raise FileNotFoundError(
        f"expected the Noto Color Emoji font at {explicit or FONT_NAMES[0]}, found nothing; "
        "install it with `apt-get install fonts-noto-color-emoji`, or name it with --font"
    )


def render(font: Path) -> Glyphs:
    """Every single-code-point glyph above U+2000 that Unicode names, in code-point order."""
    from fontTools.ttLib import TTFont

    ttf = TTFont(str(font))
    bitmaps = ttf["CBDT"].strikeData[0]
    images, captions = [], []
    for code, name in sorted(ttf.getBestCmap().items()):
        caption = unicodedata.name(chr(code), "").lower()
        if code <= 0x2000 or not caption or name not in bitmaps:
            continue
        glyph = Image.open(io.BytesIO(bitmaps[name].imageData)).convert("RGBA")
        height = round(glyph.height * GLYPH_WIDTH / glyph.width)
        small = _premultiplied_resize(glyph, (GLYPH_WIDTH, height))
        canvas = np.zeros((SIDE, SIDE, 4), np.uint8)
        top, left = (SIDE - height) // 2, (SIDE - GLYPH_WIDTH) // 2
        canvas[top : top + height, left : left + GLYPH_WIDTH] = small
        images.append(canvas)
        captions.append(caption.replace("-", " "))
    return Glyphs(np.stack(images), tuple(captions))


def _premultiplied_resize(glyph: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize with colour weighted by alpha, so that transparent pixels do not bleed into the edge."""
    rgba = np.asarray(glyph, np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    bands = [np.asarray(Image.fromarray(rgba[..., i]).resize(size, Image.Resampling.BOX)) for i in range(4)]
    out = np.stack(bands, -1)
    out[..., :3] /= np.maximum(out[..., 3:], 1e-6)
    return np.asarray((out.clip(0, 1) * 255).round(), np.uint8)


def on_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """RGBA uint8 [..., 4] -> RGB float [..., 3] in [0, 1] on white."""
    x = rgba.astype(np.float32) / 255
    return np.asarray(x[..., :3] * x[..., 3:] + 1 - x[..., 3:], np.float32)


def choose(glyphs: Glyphs, count: int) -> Glyphs:
    """The `count` plainest glyphs that can be told apart, without the families of near-copies.

    Plain is a small mean gradient. In that order, a glyph is taken if it differs by `_DISTINCT` (root mean square,
    at 32x32) from all taken before it; the favourites come first. Result in code-point order.
    """
    keep = [i for i, c in enumerate(glyphs.captions) if not _LEFT_OUT.search(c)]
    images = on_white(glyphs.rgba[keep])
    gradient = sum(np.abs(np.diff(images, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
    favourite = np.array([glyphs.captions[i] in _FAVOURITES for i in keep])
    small = images.reshape(len(keep), 32, 2, 32, 2, 3).mean((2, 4)).reshape(len(keep), -1)
    taken: list[int] = []
    for i in np.lexsort((gradient, ~favourite)):
        if len(taken) < count and all(((small[i] - small[j]) ** 2).mean() > _DISTINCT**2 for j in taken):
            taken.append(int(i))
    chosen = [keep[i] for i in sorted(taken)]
    return Glyphs(glyphs.rgba[chosen], tuple(glyphs.captions[i] for i in chosen))


def may_flip(caption: str) -> bool:
    """Whether the mirrored glyph still shows what the caption says."""
    return not _ONE_WAY.search(caption)


def jitter(rgba: Tensor, flippable: Tensor, rng: torch.Generator, strength: float = 1.0) -> Tensor:
    """Images as training sees them: shifted, mirrored, and with other brightness, colour and grain.

    rgba uint8 [B, 64, 64, 4], flippable bool [B] -> float [B, 3, 64, 64] in [-1, 1] on white. Colour and grain
    touch the glyph, never the white around it.
    """
    b = rgba.shape[0]
    x = rgba.float() / 255
    rgb, alpha = x[..., :3], x[..., 3:]
    gain = torch.exp(torch.randn(b, 1, 1, 1, generator=rng) * 0.08 * strength)
    tint = torch.exp(torch.randn(b, 1, 1, 3, generator=rng) * 0.04 * strength)
    grain = torch.randn(b, SIDE, SIDE, 3, generator=rng) * 0.02 * strength
    rgb = (rgb * gain * tint + grain).clamp(0, 1)
    y = rgb * alpha + 1 - alpha
    flip = (torch.rand(b, generator=rng) < FLIP) & flippable
    y = torch.where(flip[:, None, None, None], y.flip(2), y)
    shifts = torch.randint(-SHIFT, SHIFT + 1, (b, 2), generator=rng)
    shifts *= torch.rand(b, 1, generator=rng) < SHIFTED
    y = torch.stack([torch.roll(p, (int(s[0]), int(s[1])), (0, 1)) for p, s in zip(y, shifts, strict=True)])
    return y.permute(0, 3, 1, 2) * 2 - 1

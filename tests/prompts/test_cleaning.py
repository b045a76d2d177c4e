"""Captions cleaned as LlamaGen's were: expectations worked out by hand from the published pipeline, run twice."""

from __future__ import annotations

import pytest

from coolsd_rt.prompts.cleaning import clean

CASES = {
    "A photo of a Cat, sitting on a mat.": "a photo of a cat, sitting on a mat.",
    "  two   spaces\tand\nlines ": "two spaces and lines",
    "Dog+cat%21": "dog cat!",
    '"Quoted caption"': "quoted caption",
    "see https://example.com/x now": "see now",
    "see www.example.org now": "see now",
    "red_apple-on_a-table": "red apple on a table",
    "a well-known red-hot chilli": "a well-known red-hot chilli",
    "a \u2013 b \u2014 c": "a - b - c",
    "IMG_2044.JPG sunset": "sunset",
    "a poster 30x40 cm": "a poster cm",
    "日本 temple": "temple",
    "“smart” quotes": '"smart" quotes',
    "<p>bold &amp; brave</p>": "bold brave",
    "<person> riding": "person riding",
    "a @someone cat #12": "a cat",
    "(vector) art *** sale!": "vector art sale!",
    "ip 192.168.0.1 here": "ip here",
    "cats,dogs": "cats, dogs",
    "a cat/dog": "a cat dog",
    "click on here to win a cat": "to win a cat",
    "a \ufb01ne \uff21\uff22": "a fine ab",
    "abc1234 model": "model",
    "page 12 of a book": "of a book",
    "no. 123456 sold": "no. sold",
    "cafe\u0301": "caf\u00e9",
    "'a cat'-": "a cat",  # one pass leaves a quote
    "...": "",
    "": "",
}


@pytest.mark.parametrize("caption", CASES, ids=range(len(CASES)))
def test_a_caption_comes_out_as_published(caption: str) -> None:
    assert clean(caption) == CASES[caption]


def test_an_ordinary_caption_is_left_alone() -> None:
    for caption in (
        "a red apple on a wooden table",
        "two dogs, one black and one white, in the snow",
        "it's 7 o'clock",
    ):
        assert clean(caption) == caption
        assert clean(caption.upper()) == caption

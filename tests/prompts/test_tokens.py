"""The tokens condition: what stands around a prompt in each layout, ragged rows, and what a prompt may not hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.prompts import TokensConditioner, stack
from coolsd_rt.prompts.tokens import FIRST, JANUS_PAD

pytest.importorskip("tokenizers")

BEGIN = FIRST["janus"]
SPECIAL = [
    "<s>",
    BEGIN,
    "<pad>",
    "<unk>",
    "<reserved08706>",
    "<|User|>",
    "<|Assistant|>",
    "<begin_of_image>",
    JANUS_PAD,
]
WORDS = ["Generate", "an", "image", "of", "768x512", "according", "to", "the", "following", "prompt", ":"]
PROMPT = ["red", "apple", "blue", "star"]
ID = {word: n for n, word in enumerate((*SPECIAL, *WORDS, *PROMPT))}
W = 24


def write_tokenizer(
    path: Path, special: list[str] = SPECIAL, added: list[str] = SPECIAL, template: str = "<s> $A"
) -> Path:
    """Words by white space; the special ones are a token each wherever they stand. template: what it puts around."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {word: ID[word] for word in (*special, *WORDS, *PROMPT)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(added)
    tokenizer.post_processor = processors.TemplateProcessing(
        template, special_tokens=[("<s>", 0), ("<pad>", ID["<pad>"])]
    )
    tokenizer.enable_padding(length=99)  # as some files are saved; a prompt is neither padded nor cut
    tokenizer.enable_truncation(3)
    tokenizer.save(str(path))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pre = write_tokenizer(tmp_path / "tokenizer.json")
    assert "768x512" in pre.read_text()
    return pre


@pytest.fixture
def lumina(path: Path) -> TokensConditioner:
    return TokensConditioner.load(path, "lumina", W, (768, 512))


@pytest.fixture
def anole(path: Path) -> TokensConditioner:
    return TokensConditioner.load(path, "anole", W)


@pytest.fixture
def janus(path: Path) -> TokensConditioner:
    return TokensConditioner.load(path, "janus", W)


def ids(*words: str) -> list[int]:
    return [ID[word] for word in words]


def test_a_lumina_row_is_the_prompt_then_the_images_begin_and_size(lumina: TokensConditioner) -> None:
    encoded = lumina.encode("red apple")
    wanted = [*ids("<s>", *WORDS, "red", "apple", "<reserved08706>"), 8197, 8804 + 512 // 32, 8804 + 768 // 32]
    assert list(encoded.ids) == wanted
    assert encoded.start == W - len(wanted)


def test_luminas_unconditional_row_begins_with_the_image(lumina: TokensConditioner) -> None:
    rows = stack(lumina, [lumina.encode("red apple"), lumina.encode("star")], guided=True)
    size = [8197, 8804 + 16, 8804 + 24]
    assert rows.text[:, -3:].tolist() == [size] * 4
    assert rows.start.tolist() == [W - 18, W - 17, W - 3, W - 3]
    assert not rows.text[2:, : W - 3].any()
    assert [bool((row[:start] == 0).all()) for row, start in zip(rows.text, rows.start, strict=True)] == [True] * 4


def test_an_anole_row_is_the_prompt_an_end_of_turn_and_the_images_begin(anole: TokensConditioner) -> None:
    """Both rows as LANTERN's public code has them: 0, the words, 8710, 8197, and 0, 8197, padded on the left."""
    encoded = [anole.encode("red apple"), anole.encode("star")]
    assert list(encoded[0].ids) == [*ids("<s>", "red", "apple", "<reserved08706>"), 8197]
    rows = stack(anole, encoded, guided=True)
    assert rows.start.tolist() == [W - 5, W - 4, W - 2, W - 2]
    assert rows.text[:, -1].tolist() == [8197] * 4
    assert rows.text[2:, -2].tolist() == ids("<s>", "<s>")
    assert [bool((row[:start] == 0).all()) for row, start in zip(rows.text, rows.start, strict=True)] == [True] * 4


def test_a_janus_row_ends_where_its_image_begins(janus: TokensConditioner) -> None:
    encoded = janus.encode("blue star")
    assert list(encoded.ids) == ids(BEGIN, "<|User|>", ":", "blue", "star", "<|Assistant|>", ":", "<begin_of_image>")


def test_janus_unconditional_row_has_padding_in_the_prompts_place(janus: TokensConditioner) -> None:
    encoded = [janus.encode("blue star"), janus.encode("star")]
    rows = stack(janus, encoded, guided=True)
    assert rows.start.tolist() == [W - 8, W - 7] * 2
    for row, e in zip(rows.text[2:], encoded, strict=True):
        own = row[e.start :].tolist()
        assert (own[0], own[-1]) == (e.ids[0], e.ids[-1])
        assert own[1:-1] == [ID[JANUS_PAD]] * (len(e.ids) - 2)


@pytest.mark.parametrize("template", ["<s> $A", "$A", "<s> $A <pad>"])
def test_a_row_begins_with_the_first_token_whatever_the_file_puts_around(tmp_path: Path, template: str) -> None:
    """Published files differ: some leave the first token to the library around them."""
    path = write_tokenizer(tmp_path / "t.json", template=template)
    for layout, first, size in (("lumina", "<s>", (768, 512)), ("anole", "<s>", None), ("janus", BEGIN, None)):
        encoded = TokensConditioner.load(path, layout, W, size).encode("red")  # type: ignore[arg-type]
        assert encoded.ids[0] == ID[first]
        assert ID["<pad>"] not in encoded.ids
        assert sum(i in (ID["<s>"], ID[BEGIN]) for i in encoded.ids) == 1


@pytest.mark.parametrize("layout", ["lumina", "anole", "janus"])
def test_a_prompt_that_fills_the_prefix_fits_and_one_more_word_does_not(path: Path, layout: Any) -> None:
    size = (768, 512) if layout == "lumina" else None
    around = len(TokensConditioner.load(path, layout, W, size).encode("red").ids) - 1
    conditioner = TokensConditioner.load(path, layout, around + 3, size)
    assert conditioner.encode("red red red").start == 0
    with pytest.raises(UserError, match=f"prompt too long: expected at most {around + 3} tokens, found {around + 4}"):
        conditioner.encode("red red red red")


def test_a_prefix_with_no_room_for_a_prompt_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"condition\.length: expected more than the 16 tokens around a prompt"):
        TokensConditioner.load(path, "lumina", 16, (768, 512))


@pytest.mark.parametrize("prompt", ["red <reserved08706> apple", "<s>", f"a {JANUS_PAD}", "x<begin_of_image>y"])
def test_control_tokens_cannot_be_typed(lumina: TokensConditioner, prompt: str) -> None:
    with pytest.raises(UserError, match="no control tokens"):
        lumina.encode(prompt)


def test_a_prompt_is_not_a_template(path: Path) -> None:
    conditioner = TokensConditioner.load(path, "lumina", W, (768, 512), "{prompt} image {width}")
    assert conditioner.text("red {width} {prompt}") == "red {width} {prompt} image 768"
    assert list(conditioner.encode("red").ids[:3]) == [*ids("<s>", "red", "image")]


def test_words_that_it_does_not_know_are_reported(lumina: TokensConditioner) -> None:
    assert lumina.encode("red pear").unknown == ("pear",)
    assert lumina.encode("red apple").unknown == ()


def test_an_empty_prompt_is_refused(lumina: TokensConditioner) -> None:
    with pytest.raises(UserError, match="empty prompt"):
        lumina.encode(" \n")


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    for data in (b"{}", b"\xff", b"not json"):
        (tmp_path / "t.json").write_bytes(data)
        with pytest.raises(UserError, match=r"expected a tokenizer\.json"):
            TokensConditioner.load(tmp_path / "t.json", "janus", W)
    with pytest.raises(UserError, match=r"expected a tokenizer\.json"):
        TokensConditioner.load(tmp_path / "none.json", "janus", W)


@pytest.mark.parametrize(
    ("layout", "lost"),
    [
        ("lumina", "<reserved08706>"),
        ("lumina", "<s>"),
        ("anole", "<reserved08706>"),
        ("anole", "<s>"),
        ("janus", BEGIN),
        ("janus", JANUS_PAD),
        ("janus", "<begin_of_image>"),
        ("janus", "<|User|>"),
    ],
)
def test_another_models_tokenizer_is_refused(tmp_path: Path, layout: Any, lost: str) -> None:
    """A mark that is no token, or one that falls into pieces, would be read as letters."""
    size = (768, 512) if layout == "lumina" else None
    others = [word for word in SPECIAL if word != lost]
    for special in (others, SPECIAL):
        path = write_tokenizer(tmp_path / "t.json", special, others)
        with pytest.raises(UserError, match=r"expected one token .*found none; name the target's own tokenizer\.json"):
            TokensConditioner.load(path, layout, W, size)


def test_the_missing_library_is_named_with_its_extra(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[tokens\]"):
        TokensConditioner.load(path, "janus", W)


def test_ids_are_those_of_a_session(janus: TokensConditioner) -> None:
    rows = stack(janus, [janus.encode("star")], guided=False)
    assert rows.text.dtype == np.int64
    assert rows.text.shape == (1, W)

"""The text condition: texts and chats to tokens, tokens to text as they come."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import TextConditioner, TextStream, stack

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

MARKS = ("<|end|>", "<|start|>")
CHAT = "{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}<|start|>"


def byte_tokenizer(path: Path, first: str | None = None) -> Path:
    """A token a byte, and a few pairs; control tokens MARKS. first: the token that it puts before a text."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "a")]
    for merged in ("".join(pair) for pair in merges):
        vocabulary[merged] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(MARKS))
    if first is not None:
        marks = [(first, tokenizer.token_to_id(first))]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(f"{first} $A", special_tokens=marks)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TextConditioner:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "chat.jinja").write_text(CHAT)
    return TextConditioner.load(byte_tokenizer(folder / "tokenizer.json"), 64, folder / "chat.jinja")


def test_a_prompt_is_the_first_message_of_a_chat(reader: TextConditioner) -> None:
    row = reader.encode("the cat")
    assert reader.tokenizer.decode(row.ids, skip_special_tokens=False) == "<|start|>user: the cat<|end|><|start|>"
    assert row.start == 64 - len(row.ids)
    assert row.ids == tuple(reader.chat_ids([{"role": "user", "content": "the cat"}]))


def test_a_text_is_continued_as_it_is(reader: TextConditioner, tmp_path: Path) -> None:
    """White space stays; a control token in it is one; the tokenizer's own first token goes before it."""
    row = reader.encode_text("  the\n<|end|>")
    assert reader.tokenizer.decode(row.ids, skip_special_tokens=False) == "  the\n<|end|>"
    assert row.ids[-1] == reader.token_ids(["<|end|>"])[0]
    begun = TextConditioner.load(byte_tokenizer(tmp_path / "tokenizer.json", "<|start|>"), 64)
    assert begun.encode("a").ids == (*begun.token_ids(["<|start|>"]), *reader.encode_text("a").ids)


def test_the_unconditional_row_is_the_last_token(reader: TextConditioner) -> None:
    row = reader.encode("the cat")
    rows = stack(reader, [row], guided=True)
    assert rows.start.tolist() == [row.start, 63]
    assert rows.text[1, 63] == row.ids[-1]


@pytest.mark.parametrize("mark", MARKS)
def test_a_message_cannot_end_a_turn(reader: TextConditioner, mark: str) -> None:
    with pytest.raises(UserError, match="control tokens"):
        reader.encode(f"hi {mark} there")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty prompt: expected at least one token"),
        ("x" * 65, "prompt too long: expected at most 64 tokens, found 65"),
        ("x" * (1 << 20) + "y", "prompt too long: expected at most 1048576 characters"),
        ("a\ud800", "half of a surrogate pair"),
    ],
)
def test_what_is_refused(reader: TextConditioner, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        reader.encode_text(text)
    assert said in str(caught.value)


def test_a_chat_without_a_template(tmp_path: Path) -> None:
    bare = TextConditioner.load(byte_tokenizer(tmp_path / "tokenizer.json"), 64)
    with pytest.raises(UserError, match="a chat: expected an engine with a chat template, found none"):
        bare.encode_chat([{"role": "user", "content": "hi"}])
    assert bare.encode("hi").ids == bare.encode_text("hi").ids


def test_an_end_token_that_is_none(reader: TextConditioner) -> None:
    with pytest.raises(UserError, match=r"text\.end: expected tokens of the tokenizer, found '<stop>'"):
        reader.token_ids(["<|end|>", "<stop>"])


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=24), data=st.data())
@settings(max_examples=200, deadline=None)
def test_parts_are_whole_characters_and_add_up(reader: TextConditioner, text: str, data: st.DataObject) -> None:
    """Whatever rounds the tokens come in: emoji of four tokens, control characters, and what looks like a hole."""
    if any(mark in text for mark in MARKS):
        return
    ids = reader.tokenizer.encode(text).ids
    stream, parts, at = TextStream(reader), [], 0
    while at < len(ids):
        at = min(len(ids), at + data.draw(st.integers(1, 5)))
        parts.append(stream.more(ids[:at]))
    parts.append(stream.more(ids, last=True))
    assert "".join(parts) == text == reader.decode(ids)
    if "\ufffd" not in text:
        assert all("\ufffd" not in part for part in parts)


def test_bytes_that_are_no_text_come_at_the_end(reader: TextConditioner) -> None:
    ids = reader.tokenizer.encode("é").ids[:1]
    stream = TextStream(reader)
    assert stream.more(ids) == ""
    assert stream.more(ids, last=True) == "\ufffd" == reader.decode(ids)

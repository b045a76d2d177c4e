"""Tokenizers of GGUF files: token for token those they were made of, and transformers'; what is unknown is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import UserError
from tests.checkpoints.odd_texts import odd_texts

pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from coolsd_rt.checkpoints.chat_template import chat_template  # noqa: E402
from coolsd_rt.checkpoints.gguf.tokenizer import tokenizer_json  # noqa: E402
from coolsd_rt.prompts.chat import ChatTemplate  # noqa: E402
from tests.checkpoints.llamas import fields, gguf_tensors, llama, write_gguf  # noqa: E402

SPECIAL, OWN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<think>", "hello world")
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def words(rule: str) -> Any:
    """The rule by the library's own classes."""
    from tokenizers import Regex, pre_tokenizers

    if rule == "llama-bpe":
        parts = [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        return pre_tokenizers.Sequence(parts)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if rule == "smollm" else []
    return pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def trained(rule: str) -> Any:
    """A tokenizer of 600 tokens. Some of its texts are numbers, so that rules for digits show."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(ignore_merges=rule == "llama-bpe"))
    made.pre_tokenizer, made.decoder = words(rule), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    made.train_from_iterator([*odd_texts(400, seed=1), *(f" {n} {n * n}" for n in range(300))], trainer)
    made.add_tokens([AddedToken(token, normalized=False) for token in OWN])
    return made


def values(made: Any, rule: str) -> dict[str, Any]:
    """What llama.cpp's converter writes of a tokenizer."""
    vocabulary = made.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = json.loads(made.to_str())["model"]["merges"]
    types = [3 if token in SPECIAL else 4 if token in OWN else 1 for token in tokens]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }


def saved(folder: Path, made: Any, rule: str, **more: Any) -> Path:
    model = llama(True, num_hidden_layers=1, hidden_size=32, intermediate_size=32, vocab_size=made.get_vocab_size())
    data = fields(model) | values(made, rule) | {f"tokenizer.ggml.{key}": value for key, value in more.items()}
    data = {key: value for key, value in data.items() if value is not None}
    return write_gguf(folder / "a.gguf", data, gguf_tensors(model))


def same(ours: Any, theirs: Any, own: tuple[str, ...] = OWN) -> int:
    """Compare ids and texts; returns how many tokens were compared. theirs: a tokenizer of the same library."""
    compared = 0
    for text in odd_texts(special=(*SPECIAL, *own)):
        found, wanted = (
            ours.encode(text, add_special_tokens=False).ids,
            theirs.encode(text, add_special_tokens=False).ids,
        )
        assert found == wanted, text
        for skip in (False, True):
            assert ours.decode(found, skip_special_tokens=skip) == theirs.decode(wanted, skip_special_tokens=skip), text
        compared += len(found)
    return compared


@pytest.mark.parametrize("rule", ["smollm", "gpt-2", "llama-bpe"])
def test_it_is_the_tokenizer_that_was_written(rule: str, tmp_path: Path) -> None:
    made = trained(rule)
    path = saved(tmp_path, made, rule)
    data = tokenizer_json(path)
    ours = tokenizers.Tokenizer.from_str(data.decode())
    assert same(ours, made) > 20_000
    assert ours.get_vocab(True) == made.get_vocab(True)
    assert data == tokenizer_json(path)  # deterministic
    (tmp_path / "tokenizer.json").write_bytes(data)
    again = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert again("Hi 12<|im_end|>")["input_ids"] == made.encode("Hi 12<|im_end|>").ids


@pytest.mark.parametrize("rule", ["smollm", "gpt-2", "llama-bpe"])
def test_it_is_transformers_own_reading(rule: str, tmp_path: Path) -> None:
    """transformers cuts `smollm` as GPT-2, without llama.cpp's first rule; with that rule it is the same.

    An own token with a space it does not find: texts have none.
    """
    path = saved(tmp_path, trained(rule), rule)
    ours = tokenizers.Tokenizer.from_str(tokenizer_json(path).decode())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name).backend_tokenizer
    if rule == "smollm":
        theirs.pre_tokenizer = words(rule)
    if rule == "llama-bpe":  # a rule of llama.cpp's, which transformers leaves out
        data = json.loads(theirs.to_str())
        data["model"]["ignore_merges"] = True
        theirs = tokenizers.Tokenizer.from_str(json.dumps(data))
    assert same(ours, theirs, OWN[:1]) > 20_000


def test_rules_differ_where_they_should(tmp_path: Path) -> None:
    """Else the tests above would compare one rule with itself."""
    made = trained("gpt-2")
    found = {}
    for rule in ("smollm", "gpt-2", "llama-bpe"):
        ours = tokenizers.Tokenizer.from_str(tokenizer_json(saved(tmp_path, made, rule)).decode())
        found[rule] = tuple(ours.encode(" 225 22500!\n\n", add_special_tokens=False).tokens)
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(("more", "wanted"), [
    ({"add_bos_token": True}, ["<|im_start|>", "a"]), ({"add_bos_token": None}, ["<|im_start|>", "a"]),
    ({"add_eos_token": True}, ["a", "<|im_end|>"]), ({}, ["a"]),
])  # fmt: skip
def test_tokens_around_a_text(more: Mapping[str, Any], wanted: list[str], tmp_path: Path) -> None:
    """A file that does not say it begins as llama.cpp begins texts of this rule."""
    data = tokenizer_json(saved(tmp_path, trained("llama-bpe"), "llama-bpe", **more))
    ours = tokenizers.Tokenizer.from_str(data.decode())
    assert ours.encode("a").tokens == wanted
    assert ours.encode("a", add_special_tokens=False).tokens == ["a"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"model": "llama"}, "tokenizer.ggml.model: expected gpt2: byte-level BPE, found llama; name a"),
    "kinds": ({"model": [1, 2]}, "tokenizer.ggml.model: expected gpt2: byte-level BPE, found 2 entries"),
    "none": ({"model": None}, "tokenizer.ggml.model: expected gpt2: byte-level BPE, found nothing"),
    "an unknown rule": ({"pre": "qwen2"}, "tokenizer.ggml.pre: expected one of gpt-2, smollm, llama-bpe, found qwen2"),
    "no rule": ({"pre": None}, "tokenizer.ggml.pre: expected one of gpt-2, smollm, llama-bpe, found nothing"),
    "no tokens": ({"tokens": None}, "tokenizer.ggml.tokens: expected a list of texts, found nothing"),
    "numbers": ({"tokens": [1, 2]}, "tokenizer.ggml.tokens: expected a list of texts, found 2 entries"),
    "a token twice": ({"tokens": ["a", "b", "a"]}, "tokenizer.ggml.tokens: expected every token once, found 'a' twice"),
    "an empty token": ({"tokens": ["a", ""]}, "tokenizer.ggml.tokens: expected tokens with characters"),
    "types of others": ({"token_type": [1, 1]}, "numbers, one a token, found 2 entries"),
    "types in words": ({"token_type": "all"}, "numbers, one a token, found all"),
    "no types": ({"token_type": None}, "numbers, one a token, found nothing"),
    "merges of none": ({"merges": ["no such"]}, "tokenizer.ggml.merges: expected two tokens that make a third, found"),
    "half a merge": ({"merges": ["a"]}, "tokenizer.ggml.merges: expected two tokens that make a third, found 'a'"),
    "no merges": ({"merges": None}, "tokenizer.ggml.merges: expected a list of texts, found nothing"),
    "a flag in words": ({"add_bos_token": "yes"}, "tokenizer.ggml.add_bos_token: expected true or false, found yes"),
    "a far token": ({"add_bos_token": True, "bos_token_id": 9999}, "tokenizer.ggml.bos_token_id: expected an id below"),
}  # fmt: skip


@pytest.fixture(scope="module")
def smollm() -> Any:
    return trained("smollm")


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str, smollm: Any, tmp_path: Path) -> None:
    more, found = WRONG[case]
    with pytest.raises(UserError) as caught:
        tokenizer_json(saved(tmp_path, smollm, "smollm", **more))
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_templates(smollm: Any, tmp_path: Path) -> None:
    """Of a GGUF file, of a folder in both forms, and of a file by itself."""
    path = saved(tmp_path, smollm, "smollm")
    assert chat_template(path) == values(smollm, "smollm")["tokenizer.chat_template"].encode()
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"expected chat_template.jinja or tokenizer_config.json in it, found neither"):
        chat_template(tmp_path / "in")
    config = tmp_path / "in/tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "{{ 'é' }}"}))
    assert chat_template(tmp_path / "in") == chat_template(config) == "{{ 'é' }}".encode()
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert chat_template(config) == b"d"
    (tmp_path / "in/chat_template.jinja").write_text("{{ j }}")
    assert chat_template(tmp_path / "in") == chat_template(tmp_path / "in/chat_template.jinja") == b"{{ j }}"


TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]
MARKED = (
    "\n{{ bos_token }}{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_special_tokens_of_a_template_are_set_in_it(smollm: Any, tmp_path: Path) -> None:
    """From each place that says what they are; what is rendered is what transformers renders with the tokenizer."""
    from transformers.utils.chat_template_utils import render_jinja_template

    data = fields(llama(True, num_hidden_layers=1, hidden_size=32, intermediate_size=32, vocab_size=600))
    data |= values(smollm, "smollm") | {"tokenizer.chat_template": MARKED}
    gguf = write_gguf(tmp_path / "a.gguf", data, {})
    bos, eos = (data["tokenizer.ggml.tokens"][data[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos"))
    folder = tmp_path / "in"
    folder.mkdir()
    tokens = {"bos_token": bos, "eos_token": {"content": eos, "lstrip": False}, "unk_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": MARKED, **tokens}))
    inside = chat_template(folder)
    (folder / "chat_template.jinja").write_text(MARKED)
    given: Any = render_jinja_template([TURNS], chat_template=MARKED, bos_token=bos, eos_token=eos)
    for number, made in enumerate((chat_template(gguf), inside, chat_template(folder))):
        path = tmp_path / f"{number}.jinja"
        path.write_bytes(made)
        assert ChatTemplate.load(path).render(TURNS) == given[0][0] == f"\n{bos}ab{eos}c"
    (folder / "tokenizer_config.json").unlink()
    (tmp_path / "bare.jinja").write_bytes(chat_template(folder))
    with pytest.raises(UserError, match=r"a template that says what its bos_token is, found no value; put {% set bos"):
        ChatTemplate.load(tmp_path / "bare.jinja")


@pytest.mark.parametrize(
    "data", ["{}", '{"chat_template": 3}', '{"chat_template": [1]}', '{"chat_template": " "}', "[]"]
)
def test_no_template_is_named(data: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(data)
    with pytest.raises(UserError, match=r"chat_template: expected a chat template, found .*; name a file of Jinja"):
        chat_template(tmp_path / "tokenizer_config.json")

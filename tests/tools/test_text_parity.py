"""The comparison with transformers, on a tiny Llama in a GGUF file: it agrees, and it notices another network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("gguf")
pytest.importorskip("jinja2")
pytest.importorskip("tokenizers")
pytest.importorskip("transformers")

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.build.run import build, plan
from tests.checkpoints.llamas import fields, gguf_tensors, llama, write_gguf
from tests.prompts.test_tokens import write_tokenizer
from tools.text import parity

WIDTH, LENGTH = 24, 24


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineFolder, Path]:
    """An engine, and the file that it was made from."""
    folder = tmp_path_factory.mktemp("parity")
    model = llama(True)
    file = write_gguf(folder / "model.gguf", fields(model), gguf_tensors(model))
    convert(file, folder / "target.safetensors", None, ConvertOptions(prefix=WIDTH, length=LENGTH))
    write_tokenizer(folder / "tokenizer.json")
    (folder / "tiny.yaml").write_text(
        "version: 1\nname: tiny\ntarget: {model: llama, weights: target.safetensors}\n"
        f'draft: {{model: ngram, length: 3}}\ntext: {{length: {LENGTH}, end: ["<pad>"]}}\n'
        f"condition: {{kind: text, tokenizer: tokenizer.json, length: {WIDTH}}}\n"
        "schedule: {kind: none}\npacing: {kind: manual}\n"
    )
    return build(plan(load_spec(folder / "tiny.yaml"), folder / "engines")).engine, file


def test_the_engine_is_transformers_network(made: tuple[EngineFolder, Path], tmp_path: Path) -> None:
    engine, file = made
    (tmp_path / "prompts.txt").write_text("red apple\nan image of the blue star\n")
    words = [str(engine.folder), str(file), "--prompts", str(tmp_path / "prompts.txt"), "--tokens", "20"]
    done = CliRunner().invoke(parity.main, [*words, "--out", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["logits"]) == {"prefill", "single steps", "six positions after a rollback"}
    assert max(found["logits"].values()) < 1e-4
    assert (found["texts"], found["equal"], found["partings"]) == (2, 2, [])


def test_another_network_is_noticed(made: tuple[EngineFolder, Path], tmp_path: Path) -> None:
    """One matrix of one layer is twice as large."""
    engine, _ = made
    model = llama(True)
    tensors = gguf_tensors(model)
    tensors["blk.1.ffn_up.weight"] = tensors["blk.1.ffn_up.weight"] * 2.0
    other = write_gguf(tmp_path / "other.gguf", fields(model), tensors)
    (tmp_path / "prompts.txt").write_text("red apple\n")
    words = [str(engine.folder), str(other), "--prompts", str(tmp_path / "prompts.txt"), "--tokens", "5"]
    done = CliRunner().invoke(parity.main, [*words, "--out", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    assert min(json.loads((tmp_path / "found.json").read_text())["logits"].values()) > 1e-3

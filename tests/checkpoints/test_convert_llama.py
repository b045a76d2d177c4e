"""Language models of the family llama, from Hugging Face's folders: transformers' logits; what differs is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.load import load_target
from coolsd_rt.cli.main import run
from coolsd_rt.errors import UserError
from coolsd_rt.models.families.llama import LlamaConfig
from coolsd_rt.models.header import read_config
from tests.models.family_cases import ROWS, Image, eager, relative, stepped

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from tests.checkpoints.llamas import LENGTH, PREFIX, llama

TOLERANCE = 1e-4
OPTIONS = ConvertOptions(prefix=PREFIX, length=LENGTH)
STARTS = torch.tensor([0, 3, PREFIX - 1])


def saved(model: Any, folder: Path) -> Path:
    """The model in shards."""
    model.save_pretrained(folder, max_shard_size="600KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


@torch.no_grad()
def same_logits(path: Path, model: Any) -> float:
    """The largest relative difference to transformers': prefill, steps and verifications, padded on the left."""
    target = load_target(path)
    cfg = target.cfg
    assert isinstance(cfg, LlamaConfig)
    torch.manual_seed(5)
    prompt, tokens = torch.randint(0, cfg.vocab, (ROWS, PREFIX)), torch.randint(0, cfg.vocab, (ROWS, LENGTH))
    where = torch.arange(PREFIX + LENGTH)
    wanted = model(
        torch.cat([prompt, tokens], dim=1),
        attention_mask=(where >= STARTS[:, None]).long(),
        position_ids=(where - STARTS[:, None]).clamp(min=0),
    ).logits
    worst, checked = 0.0, 0
    for row, at, logits, _ in stepped(cfg, tokens, eager(target, Image(prompt, tokens, STARTS))):
        begin = max(at, int(STARTS[row]))
        found, right = logits[begin - at :], wanted[row, begin : at + len(logits)]
        worst, checked = max(worst, relative(found, right)), checked + len(found)
    assert checked > 40
    return worst


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_transformers(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    model = llama(tied).to(dtype)
    done = convert(saved(model, tmp_path / "in"), tmp_path / "ours", None, OPTIONS)
    assert (done.family, done.dropped) == ("llama", 0)
    assert read_config(done.path) == {
        "family": "llama", "vocab": 96, "dim": 256, "layers": 2, "heads": 8, "kv_heads": 2, "ffn": 512,
        "prefix": PREFIX, "length": LENGTH, "context": 128, "norm_eps": 1e-5, "rope_base": 5000.0, "tied": tied,
    }  # fmt: skip
    assert same_logits(done.path, model.float()) < TOLERANCE
    assert {value.dtype for value in load_file(done.path).values()} == {dtype}


def test_as_many_heads_of_keys(tmp_path: Path) -> None:
    model = llama(num_key_value_heads=8)
    done = convert(saved(model, tmp_path / "in"), tmp_path / "ours", None, OPTIONS)
    assert "kv_heads" not in read_config(done.path)
    assert same_logits(done.path, model) < TOLERANCE


def test_the_keys_of_transformers_4(tmp_path: Path) -> None:
    """RoPE's base at the top, a scaling that is null, keys at their defaults left out."""
    model = llama(rms_norm_eps=1e-6)
    folder = saved(model, tmp_path / "in")
    change(folder, {"rope_theta": 5000.0, "rope_scaling": None}, "rope_parameters", "rms_norm_eps", "head_dim")
    done = convert(folder, tmp_path / "ours", None, OPTIONS)
    assert (read_config(done.path)["rope_base"], read_config(done.path)["norm_eps"]) == (5000.0, 1e-6)
    assert same_logits(done.path, model) < TOLERANCE


def change(folder: Path, values: dict[str, Any], *dropped: str) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in data.items() if key not in dropped}))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a head's width": ({"head_dim": 64}, "config.json: head_dim: expected 32, as the tensors have, found 64"),
    "biases": ({"attention_bias": True}, "config.json: attention_bias: expected false, found True"),
    "the MLP's": ({"mlp_bias": True}, "config.json: mlp_bias: expected false, found True"),
    "an activation": ({"hidden_act": "gelu"}, "config.json: hidden_act: expected silu, found gelu"),
    "another model": ({"model_type": "mistral"}, "config.json: model_type: expected llama, found mistral"),
    "scaled RoPE": (
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0}},
        "config.json: rope_parameters: expected no scaling of RoPE: the type default, found llama3",
    ),
    "scaled RoPE, before": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "config.json: rope_scaling: expected no scaling of RoPE: the type default, found linear",
    ),
    "RoPE of a part": ({"partial_rotary_factor": 0.5}, "config.json: partial_rotary_factor: expected 1, found 0.5"),
    "more layers": ({"num_hidden_layers": 3}, "num_hidden_layers: expected 2, as the tensors have, found 3"),
    "other heads of keys": ({"num_key_value_heads": 4}, "config.json: num_key_value_heads: expected 2"),
    "a word": ({"max_position_embeddings": "many"}, "config.json: max_position_embeddings: expected a whole number"),
    "a wrong base": ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters.rope_theta: expected a number above 0"),
    "a short model": ({"max_position_embeddings": 40}, "the model's 40 positions, found 7 + 40; give --prefix N"),
    "tied, with another head": ({"tie_word_embeddings": True}, "lm_head.weight: expected the numbers of model.embed_"),
    "neither tied nor not": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: expected true or false"),
}  # fmt: skip


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(llama(), tmp_path_factory.mktemp("llama") / "in")


def copied(source: Path, place: Path) -> Path:
    place.mkdir()
    for file in source.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_network_does_not_do_is_named(
    case: str, untied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, words = REFUSED[case]
    folder = copied(untied, tmp_path / "in")
    change(folder, values)
    options = ["--prefix", str(PREFIX), "--length", str(LENGTH)]
    assert run(["convert", str(folder), "--to", str(tmp_path / "x"), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len([line for line in error.splitlines() if not line.startswith("converting")]) == 1
    assert not (tmp_path / "x").exists()


def test_a_head_is_missing_only_where_config_says_so(untied: Path, tmp_path: Path) -> None:
    whole = {k: v for file in untied.glob("*.safetensors") for k, v in load_file(file).items()}
    config = (untied / "config.json").read_text()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/config.json").write_text(config)
    del whole["lm_head.weight"]
    save_file(whole, tmp_path / "in/model.safetensors")
    with pytest.raises(UserError, match=r"lm_head.weight: expected a tensor, for output.weight"):
        convert(tmp_path / "in", tmp_path / "x", None, OPTIONS)
    change(tmp_path / "in", {}, "tie_word_embeddings")
    assert convert(tmp_path / "in", tmp_path / "x", None, OPTIONS).config["tied"]
    change(tmp_path / "in", {"tie_word_embeddings": True})
    save_file(whole | {"lm_head.weight": whole["model.embed_tokens.weight"].clone()}, tmp_path / "in/model.safetensors")
    assert convert(tmp_path / "in", tmp_path / "y", None, OPTIONS).config["tied"]
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


ATTENTION = "model.layers.1.self_attn"
ROWS_OF = (("k", 96), ("v", 32))
"""Rows of keys and values: together as many as two heads of each."""
TENSORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a bias": (lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(256)}), "no such tensor"),
    "norms of heads": (
        lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(32)}), "--family: expected lumina",
    ),
    "other heads in a layer": (
        lambda t: t.update({f"{ATTENTION}.{p}_proj.weight": torch.ones(n, 256) for p, n in ROWS_OF}),
        "layers.1.self_attn.v_proj.weight: expected layers.1.",
    ),
    "a layer's part": (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "layers.1.mlp.up_proj.weight: expected a"),
    "a shape": (lambda t: t.update({"lm_head.weight": torch.zeros(95, 256)}), "lm_head.weight: expected output"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_a_wrong_tensor_is_named(case: str, untied: Path, tmp_path: Path) -> None:
    whole = {k: v for file in untied.glob("*.safetensors") for k, v in load_file(file).items()}
    TENSORS[case][0](whole)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/config.json").write_text((untied / "config.json").read_text())
    save_file(whole, tmp_path / "in/model.safetensors")
    with pytest.raises(UserError) as caught:
        convert(tmp_path / "in", tmp_path / "x", None, OPTIONS)
    assert TENSORS[case][1] in str(caught.value)
    with pytest.raises(UserError):
        convert(tmp_path / "in", tmp_path / "x", "llama", OPTIONS)


def test_without_a_config_nothing_is_assumed(untied: Path, tmp_path: Path) -> None:
    folder = copied(untied, tmp_path / "in")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json: model_type: expected llama, found nothing"):
        convert(folder, tmp_path / "x", None, OPTIONS)

"""Language models in GGUF files: logits are those of transformers, which reads GGUF; what differs is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.formats.plain import convert_plain
from coolsd_rt.cli.main import run
from coolsd_rt.errors import UserError
from coolsd_rt.models.header import read_config
from tests.at_once import at_once
from tests.checkpoints.test_convert_llama import OPTIONS, TOLERANCE, same_logits, saved

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

from gguf import GGMLQuantizationType as Kind  # noqa: E402

from tests.checkpoints.llamas import LENGTH, PREFIX, fields, gguf_tensors, interleaved, llama, write_gguf  # noqa: E402

SIZES = ["--prefix", str(PREFIX), "--length", str(LENGTH)]
Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Any], dict[str, Tensor]]:
    model = llama(tied=True, vocab_size=32, num_hidden_layers=1)
    return fields(model), gguf_tensors(model)


@pytest.mark.parametrize("tied", [False, True])
def test_a_plain_file_is_the_folder(tied: bool, tmp_path: Path) -> None:
    """The same file comes out of both, but for its metadata: no number differs."""
    model = llama(tied)
    path = write_gguf(tmp_path / "a.gguf", fields(model), gguf_tensors(model))
    ours = convert(path, tmp_path / "ours", None, OPTIONS)
    folder = convert(saved(model, tmp_path / "in"), tmp_path / "folder", None, OPTIONS)
    assert read_config(ours.path) == read_config(folder.path)
    assert ours.config["tied"] is tied
    wanted = load_file(folder.path)
    for name, value in load_file(ours.path).items():
        assert torch.equal(value, wanted.pop(name)), name
    assert not wanted
    assert same_logits(ours.path, model) < TOLERANCE


MIXES: dict[str, list[Kind]] = {
    "Q8_0": [Kind.Q8_0], "Q4": [Kind.Q4_0, Kind.Q4_1], "Q5": [Kind.Q5_0, Kind.Q5_1], "halves": [Kind.F16, Kind.BF16],
    "all": [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_1, Kind.BF16],
}  # fmt: skip


@pytest.mark.parametrize("mix", MIXES)
def test_it_is_transformers_own_reading(mix: str, tmp_path: Path) -> None:
    """Quantised weights, several heads a key head: transformers dequantises and turns rows back by itself."""
    model = llama(mix == "all")
    tensors = gguf_tensors(model)
    matrices = [name for name, value in tensors.items() if value.ndim == 2]
    kinds = {name: MIXES[mix][at % len(MIXES[mix])] for at, name in enumerate(matrices)}
    path = write_gguf(tmp_path / "a.gguf", fields(model), tensors, kinds)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    done = convert(path, tmp_path / "ours", "llama", OPTIONS)
    assert same_logits(done.path, theirs.eval()) < TOLERANCE
    assert convert(path, tmp_path / "half", None, OPTIONS, "bfloat16").bytes < done.bytes
    assert {value.dtype for value in load_file(tmp_path / "half").values()} == {torch.bfloat16}


def test_what_keep_keeps(tmp_path: Path, parts: Any) -> None:
    """float16 and bfloat16 as they are; what is quantised, or joined of several types, in float32."""
    kinds = {
        "blk.0.ffn_up.weight": Kind.F16, "blk.0.ffn_down.weight": Kind.BF16, "blk.0.ffn_gate.weight": Kind.Q4_0,
        "blk.0.attn_q.weight": Kind.F16, "blk.0.attn_k.weight": Kind.F16, "blk.0.attn_v.weight": Kind.Q8_0,
    }  # fmt: skip
    done = convert(write_gguf(tmp_path / "a.gguf", parts[0], parts[1], kinds), tmp_path / "ours", None, OPTIONS)
    types = {name.removeprefix("layers.0."): value.dtype for name, value in load_file(done.path).items()}
    assert types["feed_forward.w3.weight"] == torch.float16
    assert types["feed_forward.w2.weight"] == torch.bfloat16
    assert types["feed_forward.w1.weight"] == types["attention.wqkv.weight"] == torch.float32


def test_rows_are_turned_as_rope_turns_them() -> None:
    """The test's own order, from the definition: row 2 i of a head is row i of its first half."""
    rows = torch.arange(2 * 6).reshape(12, 1)
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "another network": ({"general.architecture": "qwen2"}, "general.architecture: expected llama, found qwen2"),
    "scaled RoPE": ({"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.type: expected no scaling of RoPE, fou"),
    "a factor": ({"llama.rope.scaling.factor": 4.0}, "llama.rope.scaling.factor: expected no scaling of RoPE, found 4"),
    "an old factor": ({"llama.rope.scale_linear": 2.0}, "llama.rope.scale_linear: expected no scaling of RoPE, found"),
    "RoPE of a part": ({"llama.rope.dimension_count": 16}, "rope.dimension_count: expected 32, as the tensors have, f"),
    "wide keys": ({"llama.attention.key_length": 64}, "llama.attention.key_length: expected 32, as the tensors have"),
    "experts": ({"llama.expert_count": 8}, "llama.expert_count: expected no such key"),
    "both ways": ({"llama.attention.causal": False}, "llama.attention.causal: expected no such key"),
    "more layers": ({"llama.block_count": 3}, "llama.block_count: expected 1, as the tensors have, found 3"),
    "a list of heads": ({"llama.attention.head_count_kv": [2, 2]}, "llama.attention.head_count_kv: expected 2, as the"),
    "heads in words": ({"llama.attention.head_count": "8"}, "llama.attention.head_count: expected a whole number abov"),
    "no heads": ({"llama.attention.head_count": None}, "llama.attention.head_count: expected a whole number above 0,"),
    "odd heads": ({"llama.attention.head_count": 3}, "expected"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, "rms_epsilon: expected a number above 0, found n"),
    "no length": ({"llama.context_length": None}, "llama.context_length: expected a whole number above 0, found nothi"),
    "a short model": ({"llama.context_length": 40}, "within the model's 40 positions, found 7 + 40; give --prefix N a"),
    "an endless base": ({"llama.rope.freq_base": float("inf")}, "llama.rope.freq_base: expected a number above 0, fou"),
}  # fmt: skip


def refused(path: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line, nothing written."""
    before = sorted(path.parent.iterdir())
    assert run(["convert", str(path), "--to", str(path.parent / "x"), *SIZES]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("converting")]
    assert len(lines) == 1
    assert words in lines[0]
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("case", KEYS)
def test_a_key_of_another_network_is_named(
    case: str, parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, words = KEYS[case]
    values = {key: value for key, value in (parts[0] | changes).items() if value is not None}
    refused(write_gguf(tmp_path / "a.gguf", values, parts[1]), words, capsys)


@pytest.mark.parametrize("values", [
    {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, {"llama.rope.scaling.factor": 1.0},
    {"llama.expert_count": 0, "llama.attention.causal": True}, {"llama.rope.freq_base": None, "x.unknown": 5},
])  # fmt: skip
def test_keys_that_change_nothing(values: dict[str, Any], parts: Any, tmp_path: Path) -> None:
    made = {key: value for key, value in (parts[0] | values).items() if value is not None}
    done = convert(write_gguf(tmp_path / "a.gguf", made, parts[1]), tmp_path / "x", None, OPTIONS)
    assert done.config["rope_base"] == made.get("llama.rope.freq_base", 1e4)


TENSORS: dict[str, tuple[Change, str]] = {
    "RoPE's factors": (lambda v, t: t.update({"rope_freqs.weight": torch.full((16,), 2.0)}), "factors that are all 1,"),
    "a bias": (lambda v, t: t.update({"blk.0.attn_q.bias": torch.ones(256)}), "blk.0.attn_q.bias: expected no such te"),
    "a missing one": (lambda v, t: t.pop("blk.0.ffn_up.weight"), "blk.0.ffn_up.weight: expected a tensor"),
    "a shape": (lambda v, t: t.update({"output_norm.weight": torch.ones(255)}), "output_norm.weight: expected norm.we"),
    "heads of keys": (lambda v, t: t.update({"blk.0.attn_v.weight": torch.ones(96, 256)}), "expected layers.0.attenti"),
    "more keys than values": (
        lambda v, t: t.update({"blk.0.attn_k.weight": torch.ones(96, 256), "blk.0.attn_v.weight": torch.ones(32, 256)}),
        "llama.attention.head_count_kv: expected 3",
    ),
    "NaN": (lambda v, t: t.update({"output_norm.weight": torch.full((256,), torch.nan)}), "256 in output_norm.weight"),
    "no network": (lambda v, t: [t.pop(name) for name in list(t)[1:]], "found tensors token_embd.weight, ..."),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_a_wrong_tensor_is_named(case: str, parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, tensors = dict(parts[0]), dict(parts[1])
    TENSORS[case][0](values, tensors)
    refused(write_gguf(tmp_path / "a.gguf", values, tensors), TENSORS[case][1], capsys)


def test_factors_of_one_are_dropped(parts: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", parts[0], parts[1] | {"rope_freqs.weight": torch.ones(16)})
    assert convert(path, tmp_path / "x", None, OPTIONS).dropped == 1


def test_a_file_of_another_family(parts: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", *parts)
    with pytest.raises(UserError, match="expected a checkpoint of anole"):
        convert(path, tmp_path / "x", "anole", OPTIONS)
    with pytest.raises(UserError, match="expected a checkpoint of image-reward"):
        convert_plain(path, tmp_path / "x", "image-reward")
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / "model.gguf")
    assert convert(folder, tmp_path / "x", None, OPTIONS).family == "llama"  # one file of weights in a folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model = llama(tied=True, vocab_size=32, num_hidden_layers=1, hidden_size=32, intermediate_size=32)
    kinds = {"blk.0.ffn_up.weight": Kind.Q8_0, "token_embd.weight": Kind.Q4_1, "blk.0.attn_q.weight": Kind.F16}
    path = tmp_path_factory.mktemp("tiny") / "a.gguf"
    return write_gguf(path, fields(model), gguf_tensors(model), kinds).read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_a_file_is_refused_or_leaves_a_network(
    tiny: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Most changes are in the first part, the header."""
    made = bytearray(tiny)
    for _ in range(data.draw(st.integers(1, 3))):
        end = data.draw(st.sampled_from((2048, len(made))))
        made[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del made[data.draw(st.integers(0, len(made))) :]
    folder = tmp_path_factory.mktemp("odd")
    (folder / "a.gguf").write_bytes(made)
    options = ConvertOptions(prefix=PREFIX, length=LENGTH)
    with at_once("a changed file"):
        try:
            convert(folder / "a.gguf", folder / "x", None, options)
        except UserError as error:
            refused = str(error)
        else:
            refused = ""
    assert "\n" not in refused
    assert (folder / "x").exists() is not bool(refused)
    if not refused:
        assert all(torch.isfinite(value).all() for value in load_file(folder / "x").values())

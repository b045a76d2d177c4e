"""Checks of a network's layers: the right one passes, and each planted fault is named. And words of a log."""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from coolsd_rt.backends.tensorrt.inspect import EngineLayer, Layers, Value, check_layers, compiled
from coolsd_rt.backends.tensorrt.log import native_words, reason, shorten
from coolsd_rt.contract import GraphContract, ModelDims, TensorSpec, image_contract, target_contract
from coolsd_rt.errors import CoolsdError

DIMS = ModelDims(
    vocab=5, dim=4, layers=2, heads=1, head_dim=2, prefix=3, tokens=4, draft_layers=1, draft_heads=1, draft_head_dim=2
)
CONTRACT = target_contract(DIMS, "bfloat16")


def value(spec: TensorSpec) -> Value:
    return Value(spec.name, spec.dtype, tuple({"T": 32}.get(n, -1) if isinstance(n, str) else n for n in spec.shape))


def network(contract: GraphContract = CONTRACT) -> Layers:
    """What the parser makes of a good graph, as far as it is looked at."""
    x = Value("x", "bfloat16", (-1, 1, -1, 2))
    layers = [
        EngineLayer("mm", "MATRIX_MULTIPLY", (x, x), (x,)),
        EngineLayer("norm", "REDUCE", (x,), (replace(x, dtype="float32"),)),
    ]
    inputs, outputs = tuple(map(value, contract.inputs)), tuple(map(value, contract.outputs))
    out = {v.name: v for v in outputs}
    for i in range(DIMS.layers):
        layers += [EngineLayer(f"rope_{i}", "ROTARY_EMBEDDING", (x,), (x,))]
        layers += [
            EngineLayer(f"update_{n}_{i}", "KV_CACHE_UPDATE", (v, x), (out[f"{n}_{i}_out"],))
            for n in "kv"
            for v in inputs
            if v.name == f"{n}_{i}"
        ]
        layers += [EngineLayer(f"attention_{i}", "ATTENTION_INPUT", (x, x, x), (x,), "NONE", True)]
        layers += [EngineLayer(f"attention_{i}_end", "ATTENTION_OUTPUT", (x,), (x,))]
    return Layers(inputs, outputs, tuple(layers))


def changed(name: str, **fields: Any) -> Layers:
    """The network with one layer changed; no fields: without it."""
    good = network()
    found = [replace(x, **fields) if x.name == name else x for x in good.layers if fields or x.name != name]
    return replace(good, layers=tuple(found))


def test_a_good_network_passes() -> None:
    check_layers(network(), CONTRACT, 32, "bf16")
    assert network().counts["KV_CACHE_UPDATE"] == 4


FLOAT = Value("x", "float32", (-1, 1, -1, 2))
HALF = Value("x", "float16", (-1, 1, -1, 2))
CODES = EngineLayer("dq", "DEQUANTIZE", (Value("c", "int8", (4, 4)),), (Value("w", "bfloat16", (4, 4)),))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (changed("attention_1", causal="UPPER_LEFT"), "attention_1: expected .*own mask, found causal UPPER_LEFT"),
        (changed("attention_0", masked=False), "attention_0: expected .*own mask, found no mask"),
        (changed("attention_0"), "attention: expected 2 layers, found 1"),
        (changed("rope_1"), "rotary embeddings: expected at least 2, found 1"),
        (changed("update_v_1"), "KV updates: expected 4, two a layer, found 3"),
        (
            changed("update_v_1", inputs=network().of("KV_CACHE_UPDATE")[0].inputs),
            "v_1: expected a KV update to v_1_out",
        ),
        (changed("mm", outputs=(FLOAT,)), "mm: expected bfloat16, found float32"),
        (changed("attention_1_end", outputs=(HALF,)), "attention_1_end: expected bfloat16, found float16"),
        (replace(network(), layers=(*network().layers, CODES)), "int8 matrices: expected none at bf16, found 1"),
        (replace(network(), inputs=network().inputs[1:]), "TensorRT's inputs: expected ids int64"),
        (replace(network(), outputs=network().outputs[:-1]), "TensorRT's outputs: expected 6, found 5"),
    ],
)
def test_a_planted_fault_is_named(found: Layers, words: str) -> None:
    with pytest.raises(CoolsdError, match=f"graph: {words}"):
        check_layers(found, CONTRACT, 32, "bf16")


def test_a_capacity_that_is_not_pinned_is_found() -> None:
    with pytest.raises(
        CoolsdError, match=r"expected k_0 bfloat16 \[-1, 1, 64, 2\], found k_0 bfloat16 \[-1, 1, 32, 2\]"
    ):
        check_layers(network(), CONTRACT, 64, "bf16")


def test_int8_has_to_be_there_when_it_is_asked_for() -> None:
    with pytest.raises(CoolsdError, match="int8 matrices: expected some, found 0"):
        check_layers(network(), CONTRACT, 32, "int8")
    check_layers(replace(network(), layers=(*network().layers, CODES)), CONTRACT, 32, "int8")


def test_a_tokenizer_may_attend_to_everything() -> None:
    contract = image_contract(DIMS, 8)
    x = Value("x", "float32", (-1, 4))
    layers = (EngineLayer("a", "ATTENTION_INPUT", (x,), (x,)), EngineLayer("conv", "CONVOLUTION", (x,), (x,)))
    check_layers(Layers((value(contract.inputs[0]),), (value(contract.outputs[0]),), layers), contract, 0, "fp32")


def test_an_engines_text_says_what_is_copied() -> None:
    fine = b'\n  inputs={ "ids.1" "k_0_out.1" "v_0_out.1" "{Node[a...b]}_in.1" }\n function={ name=_gemv_mha_v1 fqn=x'
    assert compiled(fine, CONTRACT).as_dict() == {"attention": {"_gemv_mha_v1": 1}, "copied": []}
    again = fine + b'\n  inputs={ "ids [profile 1].1" "k_0 [profile 1].1" "v_0_out [profile 1].1" }'
    assert compiled(again, CONTRACT).copied == ("k_0",)
    assert compiled(b"another format", CONTRACT).as_dict() == {"attention": {}, "copied": None}


def log(*errors: str) -> Any:
    return SimpleNamespace(errors=deque(errors), words=[])


def test_the_reason_is_the_last_error_that_means_something() -> None:
    noise = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)"
    assert reason(log("first", "IBuilder::build: Error Code 1: Myelin (it broke)", noise)) == "Myelin (it broke)"
    assert reason(log(noise)).startswith("[checkMacros")
    assert reason(log()) == "no reason given"


def test_a_reason_is_one_line_of_bounded_length() -> None:
    line = shorten("a\n b\t" + "c" * 1000)
    assert line.startswith("a b ccc")
    assert line.endswith("…")
    assert len(line) == 300


def test_native_words_are_kept_and_pythons_own_are_shown(capfd: Any) -> None:
    heard = log()
    stream = sys.stderr
    with native_words(heard):
        os.write(2, b"from the compiler\n")
        print("from Python", file=sys.stderr)
    os.write(2, b"after\n")
    assert sys.stderr is stream
    assert heard.words == ["from the compiler"]
    assert capfd.readouterr().err in ("from Python\nafter\n", "after\nfrom Python\n")

"""Checkpoints of every format with a tensor of another shape or a config.json of other values: refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.checkpoints.convert import FORMATS, _plan
from coolsd_rt.checkpoints.format import ConvertOptions, Given
from coolsd_rt.errors import UserError
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.store.weights import TensorInfo
from tests.models.test_reference_heads import head
from tests.models.test_reference_llamagen import HEADS, checkpoint

Shape = tuple[int, ...]
DIM = 48


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in state.items()}


def llama(root: str, table: int, norms: bool = False) -> dict[str, Shape]:
    """Two layers in Llama's names. norms: over queries and keys."""
    shapes: dict[str, Shape] = {f"{root}embed_tokens.weight": (table, DIM), f"{root}norm.weight": (DIM,)}
    for at in (f"{root}layers.0.", f"{root}layers.1."):
        shapes |= {f"{at}self_attn.{part}_proj.weight": (DIM, DIM) for part in "qkvo"}
        shapes |= {f"{at}mlp.{part}_proj.weight": (64, DIM) for part in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (DIM, 64)}
        shapes |= {f"{at}{part}_layernorm.weight": (DIM,) for part in ("input", "post_attention")}
        if norms:
            shapes |= {f"{at}self_attn.{part}_norm.{kind}": (HEADS, 16) for part in "qk" for kind in ("weight", "bias")}
    return shapes


def janus() -> dict[str, Shape]:
    linear = {"gen_aligner.layers.0": 8, "gen_aligner.layers.2": DIM, "gen_head.output_mlp_projector": DIM}
    shapes: dict[str, Shape] = {"gen_embed.weight": (40, 8), "gen_head.vision_head.weight": (40, DIM)}
    shapes |= {f"{name}.weight": (DIM, width) for name, width in linear.items()}
    shapes |= {f"{name}.bias": (DIM,) for name in linear} | {"gen_head.vision_head.bias": (40,)}
    return shapes | llama("language_model.model.", 50)


def vqgan() -> dict[str, Shape]:
    """VQGAN's names of our tokenizer."""
    config = VQConfig(16, 4, 32, (1, 2), 32, 1)
    stub = Given(Path("x"), {"quantize.embedding.weight": TensorInfo("F32", (16, 4))}, {})
    state = VQTokenizer(config).state_dict()
    return {FORMATS["vqgan"].part(name, stub, config).sources[0]: tuple(v.shape) for name, v in state.items()}


CASES: Mapping[str, tuple[str, dict[str, Shape], ConvertOptions]] = {
    "llamagen-c2i": ("llamagen-c2i", shapes_of(checkpoint("c2i")), ConvertOptions(256, HEADS)),
    "llamagen-t2i": ("llamagen-t2i", shapes_of(checkpoint("t2i")), ConvertOptions(256, HEADS)),
    "lumina-mgpt": ("lumina-mgpt", llama("model.", 9000, True) | {"lm_head.weight": (9000, DIM)}, ConvertOptions(768)),
    "anole": ("anole", llama("model.", 9000, True) | {"lm_head.weight": (9000, DIM)}, ConvertOptions()),
    "janus-pro": ("janus-pro", janus(), ConvertOptions(None, HEADS)),
    "eagle": ("eagle", shapes_of(head(DIM, HEADS, 40, False)), ConvertOptions(None, HEADS)),
    "eagle of Chameleon's kin": ("eagle", shapes_of(head(DIM, HEADS, 9000, True)), ConvertOptions()),
    "vq": ("vq", shapes_of(VQTokenizer(VQConfig(16, 4, 32, (1, 2), 32, 1)).state_dict()), ConvertOptions()),
    "vqgan": ("vqgan", vqgan(), ConvertOptions()),
}
KEYS = (
    "num_attention_heads",
    "rms_norm_eps",
    "rope_theta",
    "rope_base",
    "rope_parameters",
    "block_size",
    "swin_norm",
    "vocabulary_map",
    "text_config",
)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 0.5, 3, 10**9, 10**400, 1e308, "3", "", [], [3], {}, {"rope_theta": 10**400},
    {"IMGIMG" + "A" * 5000 + "Z": 4}, {"IMGIMGAZ": "4"},
)  # fmt: skip


def check(form: str, shapes: Mapping[str, Shape], json: Mapping[str, Any], options: ConvertOptions) -> bool:
    """Whether it is converted. Everything but UserError is raised on."""
    tensors = {name: TensorInfo("F32", shape) for name, shape in shapes.items()}
    if FORMATS[form].lacking(tensors):  # refused by its name
        return False
    asked = Given(Path("c"), tensors, json, options)
    try:
        _plan(FORMATS[form], asked, FORMATS[form].config(asked), "keep")
    except UserError as error:
        refused = error
    else:
        return True
    assert "\n" not in str(refused)
    return False


def others(shape: Shape) -> tuple[Shape, ...]:
    """Other shapes than this."""
    first = shape[:1] or (1,)
    made = (
        (), (0,), (1,), (7,), (0, 0), (1, 1), (*shape, 1), shape[:-1], shape[::-1], (2**40, 0), (0, *shape[1:]),
        (*shape[:-1], 0), (first[0] + 1, *shape[1:]), (2 * first[0], *shape[1:]), (2**33, *shape[1:]), (1, *shape[1:]),
        (2**62, 2**62), (1,) * 70,
    )  # fmt: skip
    return tuple(dict.fromkeys(each for each in made if each != shape))


@pytest.mark.parametrize("case", CASES)
def test_the_cases_are_checkpoints(case: str) -> None:
    form, shapes, options = CASES[case]
    assert check(form, shapes, {}, options)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_shape_is_refused_or_converted(case: str, data: st.DataObject) -> None:
    form, shapes, options = CASES[case]
    name = data.draw(st.sampled_from(sorted(shapes)))
    other = data.draw(st.sampled_from((None, *others(shapes[name]))))
    check(form, {k: v for k, v in shapes.items() if k != name} | ({} if other is None else {name: other}), {}, options)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("vq")])  # these read no config.json
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KEYS), st.sampled_from(VALUES), st.booleans())
def test_any_value_of_a_config_is_refused_or_converted(case: str, key: str, value: Any, nested: bool) -> None:
    form, shapes, options = CASES[case]
    check(form, shapes, {"text_config": {key: value}} if nested else {key: value}, options)

"""Foreign networks: all of them from their files, or one line that names what is wrong. Nothing random, no default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

import torch

from coolsd_rt.errors import UserError
from coolsd_rt.pretrained.clip import load_clip
from tests.pretrained.foreign_folders import copy, load, make, replaced, reword, rewrite, shard

KINDS = ("t5", "clip")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("foreign")
    return {kind: make(kind, base / kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(folders: dict[str, Path], kind: str, tmp_path: Path) -> Path:
    return copy(folders[kind], tmp_path / kind)


@pytest.fixture
def t5(folders: dict[str, Path], tmp_path: Path) -> Path:
    return copy(folders["t5"], tmp_path / "own")


@pytest.fixture
def clip(folders: dict[str, Path], tmp_path: Path) -> Path:
    return copy(folders["clip"], tmp_path / "own")


def refused(kind: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(kind, folder)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert len(text.splitlines()) == 1
    assert "Error" not in text.replace(str(folder), "")
    return text


def loaded_twice(kind: str, folder: Path) -> dict[str, Any]:
    """The network's tensors, after two loads under different seeds that have to agree bit for bit."""
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        network = load(kind, folder)
        assert torch.equal(torch.get_rng_state(), before), "loading used random numbers"
        assert not network.training
        states.append({**network.state_dict(), **dict(network.named_buffers())})
    first, second = states
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    return first


def stored(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def test_two_loads_give_the_files_tensors_bit_for_bit(kind: str, folder: Path) -> None:
    state = loaded_twice(kind, folder)
    for name, value in stored(folder).items():
        assert torch.equal(state[name], value), name


def test_shards_give_the_same_network_as_one_file(kind: str, folder: Path) -> None:
    whole = loaded_twice(kind, folder)
    shard(folder, 3)
    parts = loaded_twice(kind, folder)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_whole_t5_gives_its_encoder(t5: Path) -> None:
    alone = loaded_twice("t5", t5)
    extra = {"decoder.block.0.layer.0.layer_norm.weight": torch.ones(16), "lm_head.weight": torch.ones(12, 16)}
    rewrite(t5, lambda s: s.update(extra, **{"encoder.embed_tokens.weight": s["shared.weight"].clone()}))
    whole = loaded_twice("t5", t5)
    rewrite(t5, lambda s: s.pop("shared.weight"))  # some files have it under its other name only
    other = loaded_twice("t5", t5)
    assert all(torch.equal(alone[n], whole[n]) and torch.equal(alone[n], other[n]) for n in alone)


def test_every_missing_tensor_is_named(kind: str, folder: Path) -> None:
    state = stored(folder)
    for name in state:
        from safetensors.torch import save_file

        save_file({k: v for k, v in state.items() if k != name}, folder / WEIGHTS)
        assert f"no tensor {name};" in refused(kind, folder)


@pytest.mark.parametrize("name", ["x.weight", "xdecoder.weight", "encoder.decoder.weight", "lm_head", "text_model.new"])
def test_a_tensor_that_the_network_has_not_is_refused(kind: str, folder: Path, name: str) -> None:
    rewrite(folder, lambda s: s.update({name: torch.ones(2)}))
    assert f"the tensor {name};" in refused(kind, folder)


def test_clips_old_position_ids_are_passed_over(clip: Path) -> None:
    rewrite(clip, lambda s: s.update({"text_model.embeddings.position_ids": torch.arange(20)[None]}))
    loaded_twice("clip", clip)


@pytest.mark.parametrize("by", [-1, 1])
def test_layers_of_the_config_are_those_of_the_file(kind: str, folder: Path, by: int) -> None:
    def change(data: Any) -> None:
        part = data if kind == "t5" else data["vision_config"]
        key = "num_layers" if kind == "t5" else "num_hidden_layers"
        part[key] += by

    rewrite(folder, lambda s: s.update({k.replace(".0.", ".1."): v.clone() for k, v in s.items() if ".layers.0." in k}))
    if kind == "clip":
        reword(
            folder / "config.json", lambda d: [d[f"{t}_config"].update(num_hidden_layers=2) for t in ("text", "vision")]
        )
        load(kind, folder)
    reword(folder / "config.json", change)
    text = refused(kind, folder)
    assert "layers: expected 2, the layers" in text
    assert f"found {2 + by}" in text


TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
PLACES: dict[str, list[tuple[str, ...]]] = {
    "t5": [
        *((key,) for key in ("model_type", "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")),
        *((key,) for key in ("relative_attention_num_buckets", "layer_norm_epsilon", "eos_token_id")),
    ],
    "clip": [
        *((key,) for key in ("model_type", "projection_dim", "text_config", "vision_config")),
        *(("text_config", key) for key in (*TOWER, "vocab_size", "max_position_embeddings", "eos_token_id")),
        *(("vision_config", key) for key in (*TOWER, "image_size", "patch_size")),
    ],
}
"""The keys that define a network. (Written out: a schema that has lost one would agree with itself.)"""
PREPROCESSING = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_normalize",
    "image_mean",
    "image_std",
)


def at(data: Any, place: tuple[str, ...]) -> Any:
    for key in place[:-1]:
        data = data[key]
    return data


def test_no_key_that_defines_the_network_is_a_default(kind: str, folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text()
    sizes = 0
    for place in PLACES[kind]:
        reword(path, lambda data, p=place: at(data, p).pop(p[-1]))  # type: ignore[misc]
        assert f"config.json: {'.'.join(place)}: expected the config" in refused(kind, folder)
        path.write_text(text)
        if isinstance(value := at(json.loads(text), place)[place[-1]], int):
            sizes += 1
            for other in (str(value), value + 0.5, -value, 10**30, True, None, [value]):
                reword(path, lambda data, p=place, o=other: at(data, p).update({p[-1]: o}))  # type: ignore[misc]
                assert place[-1] in refused(kind, folder)
            path.write_text(text)
    assert sizes >= 7


def test_a_size_that_the_file_contradicts_is_refused(kind: str, folder: Path) -> None:
    """Heads of CLIP leave no trace in its shapes: that they divide the width is all that can be checked."""
    path = folder / "config.json"
    text = path.read_text()
    for place in PLACES[kind]:
        value = at(json.loads(text), place)[place[-1]]
        if isinstance(value, int) and place[-1] not in ("num_attention_heads", "image_size"):
            reword(path, lambda data, p=place, v=value: at(data, p).update({p[-1]: 2 * v + 2}))  # type: ignore[misc]
            refused(kind, folder)
            path.write_text(text)


def test_other_keys_of_a_config_change_nothing(kind: str, folder: Path) -> None:
    before = loaded_twice(kind, folder)
    more = {
        "auto_map": {"AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", None]},
        "quantization_config": {"quant_method": "bitsandbytes"},
        "attn_implementation": "kernels-community/flash-attn",
        "dtype": "float16",
        "torch_dtype": "float16",
    }
    reword(folder / "config.json", lambda data: data.update(more))
    (folder / "tokenizer_config.json").write_text(json.dumps(more))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/model"}))
    after = loaded_twice(kind, folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.full((16,), float("nan")), "expected finite numbers"),
        (torch.ones(17), "expected [16], as config.json says, found [17]"),
        (torch.ones(16, dtype=torch.int8), "expected one of F32, F16, BF16, found I8"),
        (torch.ones(16, dtype=torch.float64), "found F64"),
    ],
)
def test_a_tensor_of_another_kind_is_named(kind: str, folder: Path, value: Any, said: str) -> None:
    name = {"t5": "encoder.final_layer_norm.weight", "clip": "text_model.final_layer_norm.bias"}[kind]
    rewrite(folder, lambda s: s.update({name: value}))
    text = refused(kind, folder)
    assert name in text
    assert said in text


def test_two_copies_of_the_embedding_have_to_agree(t5: Path) -> None:
    rewrite(t5, lambda s: s.update({"encoder.embed_tokens.weight": s["shared.weight"] + 1}))
    assert "expected the same tensor as shared.weight, found another" in refused("t5", t5)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "how", ["nothing", "empty", "pointer", "page", "cut", "cut early", "bytes", "brackets", "pipe", "folder"]
)
def test_what_is_often_found_in_a_files_place_is_one_line(kind: str, folder: Path, name: str, how: str) -> None:
    replaced(folder / name, how)
    text = refused(kind, folder)
    if how != "nothing":
        assert name in text
    assert {"pipe": "a named pipe", "folder": "a folder", "empty": "", "nothing": "no"}.get(how, "") in text
    if name == WEIGHTS and how == "pointer":
        assert "a Git LFS pointer (the weights were not fetched)" in text


@pytest.mark.parametrize("how", ["nothing", "empty", "pointer", "cut", "cut early", "longer", "pipe", "folder"])
def test_a_shard_that_is_not_whole_is_named(kind: str, folder: Path, how: str) -> None:
    shard(folder)
    replaced(folder / "model-00002-of-00002.safetensors", how)
    assert "model-00002-of-00002.safetensors: expected" in refused(kind, folder)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/dev/zero", "", "a/b.safetensors", "..", "x.bin", "\x1b[2J.safetensors"]
)
def test_an_index_names_files_of_its_own_folder(kind: str, folder: Path, name: str) -> None:
    index = shard(folder)
    reword(index, lambda data: data["weight_map"].update(dict.fromkeys(list(data["weight_map"])[:1], name)))
    text = refused(kind, folder)
    assert "weight_map: expected the name of a safetensors file in the same folder" in text
    assert text.isprintable()


def test_a_tensor_stands_in_exactly_the_shard_that_the_index_says(kind: str, folder: Path) -> None:
    index = shard(folder)
    text = index.read_text()
    names = sorted(json.loads(text)["weight_map"])
    one, two = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    reword(index, lambda data: data["weight_map"].pop(names[0]))
    assert f"{names[0]}: expected '{one}', which holds it, found none" in refused(kind, folder)
    index.write_text(text)
    reword(index, lambda data: data["weight_map"].update({names[0]: two}))
    assert f"{names[0]}: expected '{one}', which holds it, found '{two}'" in refused(kind, folder)
    index.write_text(text)
    reword(index, lambda data: data["weight_map"].update({"more": two}))
    assert f"more: expected a tensor, found none in {two}" in refused(kind, folder)
    index.write_text(text)
    rewrite(folder, lambda s: s.update({names[0]: torch.ones(1)}), two)  # in both
    assert f"{names[0]}: expected '{two}', which holds it, found '{one}'" in refused(kind, folder)


def test_no_tokenizer_is_made_up(kind: str, folder: Path) -> None:
    """The library would make one of a few words; a spiece.model it would convert, or not, by what is installed."""
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json: expected the network's tokenizer, found no such file" in refused(kind, folder)
    (folder / "spiece.model").write_bytes(b"\x0a\x0e")
    assert "make it of spiece.model" in refused(kind, folder)


def test_a_tokenizer_of_another_network_is_refused(kind: str, folder: Path) -> None:
    path = folder / "tokenizer.json"
    text = path.read_text()

    def grow(data: Any) -> None:
        data["model"]["vocab"]["zzz"] = 99

    reword(path, grow)
    assert "expected ids below" in refused(kind, folder)
    path.write_text(text)
    reword(path, lambda data: data.update(post_processor=None))  # the end mark is not put there
    assert "tokenizer.json: expected" in refused(kind, folder)
    assert "eos_token_id" in refused(kind, folder)


def test_what_a_tokenizer_file_says_of_cutting_and_padding_is_not_followed(t5: Path) -> None:
    from coolsd_rt.prompts import T5Encoder

    before = T5Encoder(t5, 9, "fp32").features("a red apple on the table")
    reword(
        t5 / "tokenizer.json",
        lambda data: data.update(
            truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            padding={
                "strategy": {"Fixed": 9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            },
        ),
    )
    after = T5Encoder(t5, 9, "fp32").features("a red apple on the table")
    assert (before == after).all()


def test_no_key_of_clips_preprocessing_is_a_default(clip: Path) -> None:
    path = clip / "processor_config.json"
    text = path.read_text()
    for key in PREPROCESSING:
        reword(path, lambda data, k=key: data["image_processor"].pop(k))  # type: ignore[misc]
        assert f"{path}: image_processor.{key}: expected" in refused("clip", clip)
        path.write_text(text)
    reword(path, lambda data: data["image_processor"].update(crop_size={"height": 8, "width": 8}))
    assert "crop_size: expected 16 x 16, the image_size of config.json" in refused("clip", clip)
    path.unlink()
    assert "preprocessor_config.json: expected the preprocessing of CLIP's images" in refused("clip", clip)


def test_the_old_preprocessor_file_is_the_new_one(clip: Path) -> None:
    """As openai/clip-vit-base-patch32 has it."""
    import numpy as np

    image = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    new = load_clip(clip).inputs([image], ["a"])
    said = json.loads((clip / "processor_config.json").read_text())["image_processor"]
    (clip / "processor_config.json").unlink()
    old = {
        key: said[key] for key in ("do_center_crop", "do_normalize", "do_resize", "image_mean", "image_std", "resample")
    }
    old |= {"crop_size": 16, "size": 16, "feature_extractor_type": "CLIPFeatureExtractor"}
    (clip / "preprocessor_config.json").write_text(json.dumps(old))
    again = load_clip(clip).inputs([image], ["a"])
    assert all(torch.equal(new[key], again[key]) for key in new)


def test_clip_computes_in_float32_whatever_it_is_stored_in(clip: Path) -> None:
    rewrite(clip, lambda s: s.update({name: value.half() for name, value in s.items()}))
    assert {value.dtype for value in load("clip", clip).state_dict().values()} == {torch.float32}


def test_loading_leaves_the_librarys_settings_alone(folders: dict[str, Path]) -> None:
    from transformers.utils import logging

    library: Any = logging
    library.set_verbosity_info()
    try:
        load("t5", folders["t5"])
        assert library.get_verbosity() == library.INFO
        assert library.is_progress_bar_enabled()
    finally:
        library.set_verbosity_warning()

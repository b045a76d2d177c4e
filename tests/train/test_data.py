"""Images as codes: made once, gone on with after a kill, never mixed up; batches that depend on the step alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coolsd_rt.checkpoints.load import load_target, load_tokenizer
from coolsd_rt.errors import UserError
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.train.codes import SHARD, CodeStore
from coolsd_rt.train.config import TrainCallbacks
from coolsd_rt.train.data import batch_at, prepare
from coolsd_rt.train.images import load_pixels, read_folder
from coolsd_rt.train.process import Process
from coolsd_rt.train.prompts import split_prompts
from tests.tiny import SIDE
from tests.train.training import PROMPTS, request


def _store(tmp_path: Path, count: int, **identity: int) -> CodeStore:
    return CodeStore(tmp_path, "self", identity, count, 4)


def test_a_store_goes_on_where_a_kill_left_it(tmp_path: Path) -> None:
    made: list[range] = []

    def make(shard: range) -> Tensor:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(shard)
        return torch.arange(shard.start * 4, shard.stop * 4).reshape(-1, 4)

    store = _store(tmp_path, 3 * SHARD + 5)
    with pytest.raises(KeyboardInterrupt):
        store.fill(make)
    kept, made[:] = list(made), []
    with pytest.raises(KeyboardInterrupt):
        _store(tmp_path, 5 * SHARD).fill(make)  # more of the same: those that are there stay
    assert [s.start for s in kept + made] == [0, SHARD, 2 * SHARD, 3 * SHARD]
    made[:] = []
    store.fill(make)
    assert torch.equal(store.load(), torch.arange(store.count * 4).reshape(-1, 4))
    assert _store(tmp_path, 5, seed=1).folder != store.folder


def test_a_broken_shard_says_what_to_do(tmp_path: Path) -> None:
    store = _store(tmp_path, 3)
    store.fill(lambda shard: torch.zeros(len(shard), 4))
    (shard,) = store.folder.iterdir()
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"whole safetensors.*remove it"):
        store.load()


def test_epochs_show_every_image_once() -> None:
    seen = [i for step in range(15) for i in batch_at(step, 4, 10, seed=7)]
    for epoch in range(6):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]
    assert batch_at(11, 4, 10, seed=7) == seen[44:48]
    assert batch_at(0, 4, 10, seed=8) != seen[:4]


def test_held_out_prompts_are_never_trained_on() -> None:
    texts = [f"p {i}" for i in range(50)]
    train, held = split_prompts([*texts, *texts], 16, seed=0)
    assert len(held) == 5
    assert sorted(train + held) == sorted(texts)
    assert split_prompts(texts, 16, seed=1)[1] != held


def test_named_prompts_are_measured_on_and_none_is_kept_back(tmp_path: Path, tiny_spec: Path) -> None:
    assert split_prompts(["a", "b", "a"], 16, 0, ["b", "c", "b"]) == (["a", "b"], ["b", "c"])
    asked = request(tiny_spec, tmp_path / "d", measured_prompts=PROMPTS[:2], held_out=3)
    target = load_target(asked.loaded.files["target.weights"])
    made = prepare(asked, target, Sampling(cfg_scale=2.0), Process("cpu"), TrainCallbacks())
    assert tuple(made.train.prompts.texts) == PROMPTS
    assert tuple(made.held.prompts.texts) == PROMPTS[:2]
    assert made.held.prompt == (0, 1, 0)
    assert not torch.equal(made.held.codes[0], made.train.codes[0])  # another image of the same prompt


def _folder(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, prompt in enumerate(PROMPTS):
        pixels = rng.integers(0, 255, (2 * SIDE, 3 * SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f" {prompt}\n")
    return folder


def test_a_folders_codes_are_the_tokenizers(tiny_spec: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images")
    target = load_target(tiny_spec.parent / "target.safetensors")
    asked = request(tiny_spec, tmp_path / "d.safetensors", data=str(folder))
    data = prepare(asked, target, Sampling(cfg_scale=2.0), Process("cpu"), TrainCallbacks())
    assert not set(data.train.prompts.texts) & set(data.held.prompts.texts)
    assert len(data.train) == len(PROMPTS) - 1
    tokenizer = load_tokenizer(tiny_spec.parent / "vq.safetensors")
    found = {p.caption: p for p in read_folder(folder)}
    for codes, number in zip(data.train.codes, data.train.prompt, strict=True):
        pixels = load_pixels([found[data.train.prompts.texts[number]]], SIDE)
        assert torch.equal(tokenizer.encode(pixels)[0], codes)
    (folder / "0.png").unlink()
    again = prepare(asked, target, Sampling(cfg_scale=2.0), Process("cpu"), TrainCallbacks())
    assert again.name != data.name


def test_pixels_are_the_centre_square_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 4), np.uint8)
    pixels[:, 2:6] = (255, 0, 0, 255)
    pixels[0, 2] = (0, 0, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("red")
    x = load_pixels(read_folder(tmp_path), 4)[0]
    assert x[:, 3, 3].tolist() == [1, -1, -1]
    assert x[:, 0, 0].tolist() == [1, 1, 1]


def test_an_index_and_its_mistakes(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg")
    index = tmp_path / "metadata.jsonl"
    index.write_text(json.dumps({"file_name": "b.jpg", "text": "a  bee"}) + "\n\n")
    assert [p.caption for p in read_folder(tmp_path)] == ["a bee"]
    for line in (
        "{",
        '{"file_name": "b.jpg"}',
        '{"file_name": "no.png", "text": "x"}',
        '["b.jpg"]',
        '{"file_name": "../b.jpg", "text": "x"}',
    ):
        index.write_text(line)
        with pytest.raises(UserError, match=r"metadata.jsonl:1: expected"):
            read_folder(tmp_path)
    index.unlink()
    with pytest.raises(UserError, match=r"b.txt: expected the caption of b.jpg"):
        read_folder(tmp_path)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    (tmp_path / "b.txt").write_text("x")
    with pytest.raises(UserError, match=r"b.jpg: expected an image"):
        load_pixels(read_folder(tmp_path), 4)
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"expected images with captions, found none"):
        read_folder(tmp_path)

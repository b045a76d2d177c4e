"""The T5 condition: rotation, mask and unconditional rows against a second account of the published pipeline."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Floats32
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.prompts import T5Conditioner, T5Encoder, stack
from coolsd_rt.prompts.t5 import load_unconditional
from tests.prompts.encoders import DIM, write_encoder

W = 7
PROMPTS = ["A red Apple", "a  blue star on the table", "star"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def learned() -> Floats32:
    return np.random.default_rng(3).standard_normal((W, DIM)).astype(np.float32)


@pytest.fixture
def conditioner(folder: Path, learned: Floats32) -> T5Conditioner:
    return T5Conditioner(learned, encoder=T5Encoder(folder, W, "fp32"))


def published(folder: Path, captions: list[str]) -> tuple[Any, Any]:
    """Padded on the right to W, encoded as one batch, rotated, masked: features [M, W, E] and masks [M, W]."""
    import torch
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = T5EncoderModel.from_pretrained(folder, local_files_only=True)
    batch = tokenizer(captions, max_length=W, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        right = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    mask = batch.attention_mask.flip(1)
    left = torch.stack([torch.roll(row, -int(m.sum()), 0) for row, m in zip(right, batch.attention_mask, strict=True)])
    return (left * mask[..., None]).numpy(), mask.numpy()


def test_rows_are_the_published_ones(conditioner: T5Conditioner, folder: Path, learned: Floats32) -> None:
    wanted, mask = published(folder, ["a red apple", "a blue star on the table", "star"])
    assert sorted(mask.sum(1)) == [2, 4, 7]
    rows = stack(conditioner, [conditioner.encode(p) for p in PROMPTS], guided=True)
    assert rows.text.shape == (6, W, DIM)
    np.testing.assert_allclose(rows.text[:3], wanted, atol=1e-5)
    # The unconditional row has the mask of the prompt beside it; what the mask hides counts for heads that see it.
    np.testing.assert_array_equal(rows.text[3:], np.stack([learned] * 3))
    seen = np.arange(W) >= rows.start[:, None]
    np.testing.assert_array_equal(seen, np.concatenate([mask, mask]) == 1)


def test_features_do_not_depend_on_the_captions_beside_them(conditioner: T5Conditioner) -> None:
    once = [conditioner.encode(p).features for p in PROMPTS]
    conditioner.release()
    again = [conditioner.encode(p).features for p in reversed(PROMPTS)]
    for a, b in zip(once, reversed(again), strict=True):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(a, b)


def test_bf16_features_are_near_those_of_fp32(folder: Path) -> None:
    a, b = (T5Encoder(folder, W, precision).features("a red apple") for precision in ("bf16", "fp32"))
    assert 0 < np.abs(a - b).max() < 0.05


def test_a_caption_that_does_not_fit_is_refused(conditioner: T5Conditioner) -> None:
    conditioner.encode("a red apple on the table")  # and </s>
    with pytest.raises(UserError, match="prompt too long: expected at most 7 tokens, found 8"):
        conditioner.encode("a red apple on the table .")


@pytest.mark.parametrize(("prompt", "said"), [("  ", "empty prompt"), ("日本", "none left of .* after cleaning")])
def test_a_caption_without_words_is_refused(conditioner: T5Conditioner, prompt: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        conditioner.encode(prompt)


def test_without_file_and_encoder_it_says_how_to_get_features(learned: Floats32) -> None:
    with pytest.raises(UserError, match=r"'a red apple'.*no text encoder; .*precompute"):
        T5Conditioner(learned).encode("a red apple")


def test_an_encoder_of_another_width_is_refused(folder: Path) -> None:
    narrow = T5Conditioner(np.zeros((W, DIM // 2), np.float32), encoder=T5Encoder(folder, W, "fp32"))
    with pytest.raises(UserError, match=r"features of width 8.*the encoder the target was trained with"):
        narrow.encode("star")


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        T5Encoder(tmp_path / "none", W).features("star")
    with pytest.raises(UserError, match=r"without config\.json"):
        T5Encoder(tmp_path, W).features("star")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match="expected a T5 encoder in safetensors, found no model"):
        T5Encoder(broken, W).features("star")
    import torch

    torch.save({}, broken / "pytorch_model.bin")  # a pickle beside them is not taken instead
    with pytest.raises(UserError, match="expected a T5 encoder in safetensors, found no model"):
        T5Encoder(broken, W).features("star")


def test_a_hub_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"someone/encoder@0{40}: .* no network; name a local folder") as caught:
        T5Encoder("someone/encoder", W, revision="0" * 40).features("star")
    assert len(str(caught.value).splitlines()) == 1


def test_a_pinned_commit_that_is_there_is_not_fetched_again(
    monkeypatch: pytest.MonkeyPatch, folder: Path, learned: Floats32
) -> None:
    import huggingface_hub

    asked: list[tuple[Any, ...]] = []

    def snapshot(name: str, revision: str, local_files_only: bool = False, **_: Any) -> str:
        asked.append((name, revision, local_files_only))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    T5Encoder("someone/encoder", W, "fp32", "a" * 40).features("star")
    assert asked == [("someone/encoder", "a" * 40, True)]
    (weights := folder / "model.safetensors").rename(folder / "kept")  # a download that was cut short
    try:
        with pytest.raises(UserError):
            T5Encoder("someone/encoder", W, "fp32", "a" * 40).features("star")
    finally:
        (folder / "kept").rename(weights)
    assert asked[1:] == [("someone/encoder", "a" * 40, True), ("someone/encoder", "a" * 40, False)]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else True)
    with pytest.raises(MissingExtra, match=r"pip install .*\[text\]"):
        T5Encoder(folder, W).features("star")


def test_the_learned_rows_are_a_table_of_finite_numbers(tmp_path: Path, learned: Floats32) -> None:
    path = tmp_path / "unconditional.npy"
    np.save(path, learned.astype(np.float16))
    assert load_unconditional(path).dtype == np.float32
    for bad in (np.full((2, 3), np.nan), np.zeros(3), np.zeros((2, 3), np.int64), np.array([object()])):
        np.save(path, bad)
        with pytest.raises(CoolsdError, match="build the engine again"):
            load_unconditional(path)

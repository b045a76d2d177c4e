"""Files of continuous tokens' networks: what is written is read, and other files are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from coolsd_rt.checkpoints.continuous import load_autoencoder, load_continuous, load_continuous_draft
from coolsd_rt.errors import UserError
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.train.networks import write_weights
from tests.continuous import AUTOENCODER, TARGET, autoencoder, decoder
from tests.tiny import IMAGE


def written(path: Path, model: nn.Module, config: object) -> Path:
    write_weights(path, model, config if isinstance(config, dict) else asdict(config), torch.float32)  # type: ignore[call-overload]
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    model, images = decoder(), autoencoder()
    again = load_continuous(written(tmp_path / "target.safetensors", model, TARGET))
    words, tokens = torch.tensor([[3, 4, 5]]), torch.randn(1, 16, 4)
    assert again.cfg == TARGET
    assert torch.equal(again.hidden(words, tokens), model.hidden(words, tokens))
    x = torch.rand(1, 3, 8, 8)
    loaded = load_autoencoder(written(tmp_path / "autoencoder.safetensors", images, AUTOENCODER))
    assert torch.equal(loaded.encode(x), images.encode(x))
    assert load_continuous(tmp_path / "target.safetensors", loaded).cfg == TARGET
    smaller = replace(TARGET, dim=24, layers=1)
    draft = written(tmp_path / "draft.safetensors", ContinuousDecoder(smaller), smaller)
    assert load_continuous_draft(draft, again).cfg == smaller


def _codes(folder: Path) -> None:
    load_autoencoder(written(folder / "a.safetensors", VQTokenizer(IMAGE), IMAGE))


def _not_weights(folder: Path) -> None:
    (folder / "a.safetensors").write_text("no")
    load_continuous(folder / "a.safetensors")


def _nothing(folder: Path) -> None:
    load_continuous(folder / "a.safetensors")


def _more_steps(folder: Path) -> None:
    load_continuous(written(folder / "a.safetensors", decoder(), asdict(TARGET) | {"steps": 101}))


def _no_last(folder: Path) -> None:
    load_continuous(written(folder / "a.safetensors", decoder(), asdict(TARGET) | {"last": 0.0}))


def _other_sizes(folder: Path) -> None:
    load_continuous(written(folder / "a.safetensors", decoder(), replace(TARGET, head=64)))


def _not_finite(folder: Path) -> None:
    model = decoder()
    model.token_in.weight[0, 0] = float("nan")
    load_continuous(written(folder / "a.safetensors", model, TARGET))


def _other_channels(folder: Path) -> None:
    load_continuous(written(folder / "a.safetensors", decoder(channels=3), replace(TARGET, channels=3)), autoencoder())


def _other_target(folder: Path) -> None:
    other = replace(TARGET, last=0.1)
    load_continuous_draft(written(folder / "a.safetensors", ContinuousDecoder(other), other), decoder())


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (_codes, "config: codebook_dim: expected one of latent, noise"),
        (_not_weights, "a.safetensors: expected"),
        (_nothing, "a.safetensors: expected"),
        (_more_steps, "config: steps: expected at most the 100 steps of training, found 101"),
        (_no_last, "config: last: expected positive sizes, found 0.0"),
        (_other_sizes, "expected shape [64"),
        (_not_finite, "token_in.weight: expected finite numbers, found 1 of"),
        (_other_channels, "config: channels: expected the autoencoder's 4, found 3"),
        (_other_target, "config: last: expected the target's 0.25, found 0.1"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, load: Callable[[Path], None], says: str) -> None:
    with pytest.raises(UserError) as found:
        load(tmp_path)
    assert says in str(found.value)
    assert "\n" not in str(found.value)

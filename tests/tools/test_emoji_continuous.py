"""The stages of continuous tokens on a few discs: resumed to the same weights, latents kept, images drawn."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coolsd_rt.checkpoints.continuous import load_autoencoder, load_continuous, load_continuous_draft
from coolsd_rt.models.continuous.denoising import Denoising
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.runtime.continuous import VectorSampling
from coolsd_rt.train.networks import write_weights
from tests.continuous import TARGET, autoencoder, decoder
from tests.tools.test_emoji_tools import glyphs
from tools.emoji import latents as kept
from tools.emoji import train_autoencoder, train_continuous, train_continuous_draft
from tools.emoji.common import Workspace
from tools.emoji.continuous import draw, pixels
from tools.emoji.loop import Training, TrainSettings

ROOT = Path(__file__).resolve().parents[2]
CODES = VQConfig(
    codebook_size=8,
    codebook_dim=4,
    channels=8,
    multipliers=(1, 1, 2),
    z_channels=8,
    res_blocks=1,
    norm_groups=4,
    attention=False,
)
SIZES = replace(TARGET, grid=16)
STEPS = 3
STAGES = {
    "autoencoder": train_autoencoder.FILE,
    "continuous": train_continuous.FILE,
    "continuous-draft": train_continuous_draft.DRAFT_FILE,
}


def run(stage: str, work: Workspace) -> None:
    """A stage in tiny, with a checkpoint after each step."""
    g, settings = glyphs(), TrainSettings(STEPS, batch=2, lr=1e-3, pool=2, save_every=1)
    if stage == "autoencoder":
        train_autoencoder.train(work, g, np.array([0, 2]), settings)
    elif stage == "continuous":
        train_continuous.train(work, g, settings, SIZES)
    else:
        train_continuous_draft.train(work, g, settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """All stages, each run without a break."""
    folder = tmp_path_factory.mktemp("whole")
    work = Workspace(folder / "work", folder / "release")
    work.release.mkdir()
    torch.manual_seed(0)
    write_weights(work.release / "vq.safetensors", VQTokenizer(CODES), asdict(CODES), torch.float32)
    for stage in STAGES:
        run(stage, work)
    return work


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_resumes_to_the_same_file(
    whole: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    work = Workspace(tmp_path / "work", tmp_path / "release")
    work.release.mkdir()
    for name in ("vq.safetensors", *STAGES.values()):
        if name != STAGES[stage]:
            (work.release / name).write_bytes((whole.release / name).read_bytes())
    save = Training.save

    def killed(self: Training, **more: object) -> None:  # type: ignore[type-arg]
        save(self, **more)
        if self.step == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(stage, work)
    assert not (work.release / STAGES[stage]).exists()
    run(stage, work)
    assert (work.release / STAGES[stage]).read_bytes() == (whole.release / STAGES[stage]).read_bytes()
    assert any("resumes at step 1" in log.read_text() for log in work.root.glob("*.log"))


def test_the_stages_make_files_that_belong_together(whole: Workspace) -> None:
    images = load_autoencoder(whole.release / train_autoencoder.FILE)
    target = load_continuous(whole.release / train_continuous.FILE, images)
    draft = load_continuous_draft(whole.release / train_continuous_draft.DRAFT_FILE, target)
    assert target.cfg.channels == images.cfg.latent == CODES.codebook_dim
    assert sum(p.numel() for p in draft.parameters()) < sum(p.numel() for p in target.parameters())
    assert (whole.release / "vocab.json").is_file()
    assert float(target.head.out.weight.abs().max()) > 0  # it starts at 0


def test_latents_are_kept_until_what_they_are_made_of_changes(whole: Workspace, tmp_path: Path) -> None:
    g = glyphs()
    work = Workspace(tmp_path, whole.release)
    made = kept.latents(work, g, 2, 0, "cpu")
    assert made.shape == (6, 2, 256, 4)
    assert (made[:, 0] != made[:, 1]).any()  # two jitters
    before = (tmp_path / "latents.safetensors").stat().st_mtime_ns
    assert torch.equal(kept.latents(work, g, 2, 0, "cpu"), made)
    assert (tmp_path / "latents.safetensors").stat().st_mtime_ns == before
    assert not torch.equal(kept.latents(work, g, 2, 1, "cpu"), made)
    assert kept.latents(work, g, 3, 0, "cpu").shape[1] == 3


def test_the_autoencoder_learns_what_a_channel_spans() -> None:
    """The buffers move towards the batch's mean and deviation, and both losses have a gradient."""
    model = autoencoder().requires_grad_(True)
    x = torch.rand(4, 3, 16, 16) * 2 - 1
    x[:, :, :, 8:] = 1
    before = model.mean.clone()
    mse, spread = train_autoencoder.losses(model, x, torch.Generator().manual_seed(0))
    raw = model.raw(x).detach()
    moved, wanted = model.mean - before, train_autoencoder.MOVE * (raw.mean((0, 1, 2)) - before)
    torch.testing.assert_close(moved, wanted, rtol=0.1, atol=1e-3)  # bfloat16
    (mse + spread).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_times_are_spread_over_a_step() -> None:
    times = train_continuous.stratified(4, 25, 100, torch.Generator().manual_seed(0))
    assert times.shape == (4, 25, 1)
    assert sorted(times.flatten().tolist()) == list(range(1, 101))


def test_an_error_below_the_last_noise_weighs_less() -> None:
    head = decoder().head
    table = Denoising(100, 5).table
    weights = train_continuous.weight_of(head, torch.arange(1, 101))
    for time, weight in enumerate(weights.tolist(), start=1):
        assert weight == pytest.approx(min(1.0, (table[time][1] / 0.25) ** 2), rel=1e-5)


def test_an_image_depends_on_its_seed_and_caption_alone() -> None:
    model = decoder()
    words = torch.tensor([[3, 4, 5], [6, 7, 0], [3, 4, 5]])

    def tokens(rows: torch.Tensor, seeds: list[int], scale: float, temperature: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(draw((model, None), rows, seeds, VectorSampling(scale, temperature)).tokens)

    together = tokens(words, [5, 6, 7], scale=2.0)
    assert together.shape == (3, 16, 4)
    alone = tokens(words[1:2], [6], scale=2.0)
    torch.testing.assert_close(alone[0], together[1], rtol=1e-3, atol=1e-3)
    assert (together[0] - together[2]).abs().max() > 0.1  # one caption, two seeds
    assert (tokens(words[1:2], [6], scale=1.0) - alone).abs().max() > 1e-3
    assert (tokens(words[1:2], [6], scale=2.0, temperature=0.0) - alone).abs().max() > 1e-3
    drawn = pixels(autoencoder(), together)
    assert drawn.shape == (3, 8, 8, 3)
    assert drawn.dtype == np.uint8


def test_a_folder_without_the_models_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "emoji_continuous.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "autoencoder.safetensors" in done.stderr

"""Loads the networks of continuous tokens: safetensors with the config in the header, checked as `load` checks others.

Knows the networks. Does not know specs, engines or training.
"""

from __future__ import annotations

from pathlib import Path

from coolsd_rt.checkpoints.load import load_network
from coolsd_rt.errors import UserError
from coolsd_rt.models.continuous.autoencoder import Autoencoder
from coolsd_rt.models.continuous.config import AutoencoderConfig, ContinuousConfig
from coolsd_rt.models.continuous.decoder import ContinuousDecoder

_SHARED = ("channels", "grid", "prefix", "words", "trained", "steps", "last")
"""Fields that a target and its draft share: with others they cannot be given the same noise, or have unequal steps."""


def load_autoencoder(path: Path) -> Autoencoder:
    """Load an autoencoder, float32. Raises UserError as `coolsd_rt.checkpoints.load.load_target` does."""
    return load_network(path, Autoencoder, AutoencoderConfig)


def load_continuous(path: Path, autoencoder: Autoencoder | None = None) -> ContinuousDecoder:
    """Load a target, float32.

    Raises UserError as `load_autoencoder` does, and if its tokens have other channels than the autoencoder's.
    """
    model = load_network(path, ContinuousDecoder, ContinuousConfig)
    model.make_table()
    if autoencoder is not None and model.cfg.channels != autoencoder.cfg.latent:
        expected = f"the autoencoder's {autoencoder.cfg.latent}"
        fix = "name the autoencoder whose tokens the model was trained on"
        raise UserError(f"{path}: config: channels", expected=expected, found=str(model.cfg.channels), fix=fix)
    return model


def load_continuous_draft(path: Path, target: ContinuousDecoder) -> ContinuousDecoder:
    """Load a draft of `target`. Raises UserError as `load_continuous` does, and if it was made for another target."""
    draft = load_continuous(path)
    for name in _SHARED:
        wanted, found = getattr(target.cfg, name), getattr(draft.cfg, name)
        if found != wanted:
            fix = "name the draft that was trained for this target"
            raise UserError(f"{path}: config: {name}", expected=f"the target's {wanted}", found=str(found), fix=fix)
    return draft

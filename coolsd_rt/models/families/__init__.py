"""The families of targets that can be loaded and exported: one small adapter each, side by side.

An adapter is a config, whose properties select the forms of the one network, and facts about published models. Knows
configs. Does not know torch. `docs/add-a-model.md` explains how to add one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig, EagleConfig, VQConfig, parse_config
from coolsd_rt.models.families.anole import ANOLE
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.families.janus import JANUS
from coolsd_rt.models.families.llama import LLAMA
from coolsd_rt.models.families.llamagen import CAPTIONED, CLASS, WORDS
from coolsd_rt.models.families.lumina import LUMINA
from coolsd_rt.models.header import read_config
from coolsd_rt.models.row_config import RowConfig

__all__ = [
    "FAMILIES", "Family", "check_draft_model", "check_rows", "family_named", "family_of", "model_dims", "parse_target",
    "read_eagle", "read_rows", "read_target", "read_tokenizer",
]  # fmt: skip

FAMILY_KEY = "family"
"""Key of a header's config; a file without it belongs to the first family, as files from before there were others."""


_SHARED = (
    "vocab",
    "grid",
    "prefix",
    "words",
    "classes",
    "text_dim",
    "text",
    "length",
)  # fields that a target and its small draft model share


def _registry(*families: Family) -> Mapping[str, Family]:
    named = {f.name: f for f in families}
    if len(named) != len(families):
        raise ValueError("two families of one name")
    return named


FAMILIES: Mapping[str, Family] = _registry(WORDS, CLASS, CAPTIONED, LUMINA, ANOLE, JANUS, LLAMA)


def family_named(name: object, what: str) -> Family:
    """Return the family of a name. what: where the name was read. Raises UserError if there is none."""
    if isinstance(name, str) and name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(str(name), FAMILIES, n=1)
    fix = f"did you mean '{near[0]}'?" if near else ""
    raise UserError(what, expected=f"one of {', '.join(FAMILIES)}", found=str(name), fix=fix)


def family_of(config: DecoderConfig) -> Family:
    """Return the family that a config belongs to."""
    return next(f for f in FAMILIES.values() if f.config is type(config))


def parse_target(path: Path, data: Mapping[str, Any]) -> DecoderConfig:
    """Return a target's config from its header's JSON. Raises UserError: an unknown family, or a wrong key."""
    family = family_named(data.get(FAMILY_KEY, WORDS.name), f"{path}: config: {FAMILY_KEY}")
    return parse_config(path, family.config, {k: v for k, v in data.items() if k != FAMILY_KEY})


def read_target(path: Path) -> DecoderConfig:
    """Return the config of a target's weights file.

    Raises UserError: not a complete safetensors file, or as `parse_target`.
    """
    return parse_target(path, read_config(path))


def read_eagle(path: Path) -> EagleConfig:
    """Return the config of an EAGLE head's weights file. Raises UserError as `read_target` does."""
    return parse_config(path, EagleConfig, read_config(path))


def read_tokenizer(path: Path) -> VQConfig:
    """Return the config of an image tokenizer's weights file. Raises UserError as `read_target` does."""
    return parse_config(path, VQConfig, read_config(path))


def check_draft_model(path: Path, draft: DecoderConfig, target: DecoderConfig) -> None:
    """Raise UserError unless a small draft model has the family, codes, cells and conditions of the target.

    path: the draft's file, for the error.
    """
    known = [f.name for f in fields(target) if f.name in _SHARED]
    fix = "name a draft that was trained on the target's codes and words"
    wanted_family, found_family = family_of(target).name, family_of(draft).name
    if found_family != wanted_family:
        raise UserError(f"{path}: config: {FAMILY_KEY}", expected=wanted_family, found=found_family, fix=fix)
    for name in known:
        wanted, found = getattr(target, name), getattr(draft, name)
        if found != wanted:
            raise UserError(f"{path}: config: {name}", expected=f"the target's {wanted}", found=str(found), fix=fix)


def read_rows(path: Path) -> RowConfig:
    """Return the config of a row head's weights file. Raises UserError as `read_target` does."""
    return parse_config(path, RowConfig, read_config(path))


def check_rows(path: Path, draft: RowConfig, target: DecoderConfig) -> None:
    """Raise UserError unless a row head has the width and the rows of the target. path: the head's file."""
    fix = "name the head that was trained for this target"
    if target.condition == "ids" and target.layout.rows == 1:
        raise UserError(str(path), expected="a target that draws rows of an image", found="one that writes text")
    for name, wanted in (("dim", target.dim), ("row", target.layout.stride)):
        if (found := getattr(draft, name)) != wanted:
            raise UserError(f"{path}: config: {name}", expected=f"the target's {wanted}", found=str(found), fix=fix)


def model_dims(target: DecoderConfig, draft: EagleConfig | DecoderConfig | RowConfig | None) -> ModelDims:
    """Return the contract's sizes of a target and its draft; None: no draft."""
    rows, layered = (draft, None) if isinstance(draft, RowConfig) else (None, draft)
    return ModelDims(
        vocab=target.vocab,
        dim=target.dim,
        layers=target.layers,
        heads=target.layer.cache_heads,
        head_dim=target.layer.head_dim,
        prefix=target.prefix,
        tokens=target.tokens,
        draft_layers=layered.layers if layered else 0,
        draft_heads=layered.layer.cache_heads if layered else 0,
        draft_head_dim=layered.layer.head_dim if layered else 0,
        draft_dim=layered.dim if isinstance(layered, DecoderConfig) else 0,
        padded=int(target.padded),
        condition_dim=target.condition_size[1] if target.condition == "text" else 0,
        row=rows.row if rows else 0,
        ahead=rows.ahead if rows else 0,
    )

"""From a spec's section to a conditioner: the files each kind takes, and nothing of torch where none is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import (
    KEYS,
    UNCONDITIONAL_FILE,
    ClassLabels,
    T5Conditioner,
    T5Encoder,
    TokensConditioner,
    WordVocabulary,
    conditioner_files,
    describe_condition,
    load_conditioner,
)
from coolsd_rt.prompts.features import key_of, metadata
from coolsd_rt.spec.condition import Condition
from tests.prompts.test_tokens import W as TOKENS_W
from tests.prompts.test_tokens import write_tokenizer

HUB = {"kind": "t5", "length": 4, "encoder": "someone/encoder", "revision": "a" * 40}
VOCABULARY = WordVocabulary.from_captions(["red apple"], 3)


def condition(**keys: Any) -> Condition:
    found: Condition = TypeAdapter(Condition).validate_python(keys)
    return found


def write_features(path: Path, encoder: str = "someone/encoder@" + "a" * 40) -> Path:
    import hashlib

    from safetensors.numpy import save_file

    rows, key = np.ones((2, 6), np.float32), key_of("star")
    checksum = hashlib.sha256(rows.tobytes()).hexdigest()
    save_file({key: rows}, path, metadata(encoder, 4, {key: "star"}, {key: checksum}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files of all kinds, under the names of an engine's folder."""
    VOCABULARY.save(tmp_path / "vocab.json")
    (tmp_path / "labels.txt").write_text("tench\ndog\n")
    write_tokenizer(tmp_path / "tokenizer.json")
    write_features(tmp_path / "features.safetensors")
    np.save(tmp_path / UNCONDITIONAL_FILE, np.zeros((4, 6), np.float32))
    return tmp_path


CASES: list[tuple[dict[str, Any], type, dict[str, str], tuple[int, bool, int | None, int | None]]] = [
    ({"kind": "words", "vocab": "v"}, WordVocabulary, {"vocab.json": "condition.vocab"}, (3, False, 5, 0)),
    ({"kind": "class"}, ClassLabels, {}, (1, False, 1001, 0)),
    ({"kind": "class", "classes": 2, "labels": "l"}, ClassLabels, {"labels.txt": "condition.labels"}, (1, False, 3, 0)),
    (HUB, T5Conditioner, {}, (4, True, None, None)),
    (
        HUB | {"features": "f"}, T5Conditioner, {"features.safetensors": "condition.features"}, (4, True, None, 6)
    ),
    (
        {"kind": "tokens", "layout": "janus", "tokenizer": "t", "length": TOKENS_W}, TokensConditioner,
        {"tokenizer.json": "condition.tokenizer"}, (TOKENS_W, True, None, 0),
    ),
    (
        {"kind": "tokens", "layout": "anole", "tokenizer": "t", "length": TOKENS_W}, TokensConditioner,
        {"tokenizer.json": "condition.tokenizer"}, (TOKENS_W, True, None, 0),
    ),
    (
        {"kind": "tokens", "layout": "lumina", "tokenizer": "t", "length": TOKENS_W, "width": 768, "height": 512},
        TokensConditioner, {"tokenizer.json": "condition.tokenizer"}, (TOKENS_W, True, None, 0),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "kind", "files", "facts"), CASES)
def test_a_kind_has_its_files_its_facts_and_its_conditioner(
    folder: Path, keys: dict[str, Any], kind: type, files: dict[str, str], facts: tuple[Any, ...]
) -> None:
    asked = condition(**keys)
    assert conditioner_files(asked) == files
    assert set(files.values()) <= set(KEYS)
    found = describe_condition(asked, {key: folder / name for name, key in files.items()})
    assert (found.prefix, found.padded, found.ids, found.features_dim) == facts
    made = load_conditioner(asked, folder.joinpath)
    assert isinstance(made, kind)
    assert (made.prefix, made.padded) == facts[:2]
    if found.features_dim is not None:
        assert made.features_dim == found.features_dim
    assert made.samples()


def test_sizes_and_template_of_the_spec_reach_the_row(folder: Path) -> None:
    keys = {"layout": "lumina", "tokenizer": "t", "length": TOKENS_W, "width": 768, "height": 512}
    made: Any = load_conditioner(condition(kind="tokens", **keys, template="{height} {prompt}"), folder.joinpath)
    assert made.text("red") == "512 red"
    assert made.tail == (8197, 8820, 8828)


def test_an_encoders_folder_stands_beside_the_spec_or_is_named(folder: Path) -> None:
    asked = condition(kind="t5", length=4, folder="sub/t5", precision="fp32")
    beside: Any = load_conditioner(asked, folder.joinpath, spec_folder=folder)
    assert beside.encoder == T5Encoder(folder / "sub/t5", 4, "fp32")
    named: Any = load_conditioner(asked, folder.joinpath, spec_folder=folder, encoder=folder / "x")
    assert named.encoder == T5Encoder(folder / "x", 4, "fp32")
    lost: Any = load_conditioner(asked, folder.joinpath)
    assert lost.encoder is None
    pinned: Any = load_conditioner(condition(**HUB), folder.joinpath)
    assert pinned.encoder == T5Encoder("someone/encoder", 4, "bf16", "a" * 40)


def test_a_named_file_of_features_takes_the_place_of_the_specs(folder: Path, tmp_path: Path) -> None:
    other = write_features(tmp_path / "other.safetensors")
    made: Any = load_conditioner(condition(**HUB), folder.joinpath, features=other)
    assert made.file.path == other
    assert made.encode("Star").start == 2


def test_features_of_another_encoder_than_the_specs_are_refused(folder: Path) -> None:
    write_features(folder / "features.safetensors", "someone/encoder@" + "b" * 40)
    asked = condition(**HUB, features="f")
    for call in (
        lambda: load_conditioner(asked, folder.joinpath),
        lambda: describe_condition(asked, {"condition.features": folder / "features.safetensors"}),
    ):
        with pytest.raises(UserError, match=r"expected features of someone/encoder@a+, found features of .*@b+"):
            call()


@pytest.mark.parametrize("more", ["features", "encoder"])
def test_features_mean_nothing_to_other_kinds(folder: Path, more: str) -> None:
    with pytest.raises(
        UserError, match=r"a text encoder: expected a target that reads .*found a target that reads class"
    ):
        load_conditioner(condition(kind="class"), folder.joinpath, **{more: folder})


def test_no_kind_needs_torch_to_be_loaded(folder: Path) -> None:
    code = f"""
import sys
for name in ("torch", "transformers", "safetensors", "huggingface_hub"): sys.modules[name] = None
from pathlib import Path
from pydantic import TypeAdapter
from coolsd_rt.prompts import load_conditioner
from coolsd_rt.spec.condition import Condition
for keys in {[keys for keys, *_ in CASES]!r}:
    load_conditioner(TypeAdapter(Condition).validate_python(keys), Path({str(folder)!r}).joinpath)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

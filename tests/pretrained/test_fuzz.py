"""Files of foreign models with one thing wrong: an error of ours or a network, never a hang, a flood or a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from coolsd_rt.errors import UserError
from coolsd_rt.pretrained.tokenizer import encode, read_tokenizer
from coolsd_rt.prompts import FeatureFile
from coolsd_rt.prompts.features import key_of, metadata
from coolsd_rt.prompts.tokens import TokensConditioner
from tests.mutations import Mutant, dump, mutated, mutated_text, survives
from tests.pretrained.foreign_folders import load, make, shard
from tests.prompts.test_tokens import W, write_tokenizer

CASES = settings(max_examples=40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("foreign")
    made = {kind: make(kind, base / kind) for kind in ("t5", "clip")}
    shard(made["t5"])
    for kind, folder in made.items():
        load(kind, folder)  # what the library imports at the first load is no allocation of a mutant's
    return made


FILES = [
    ("t5", "config.json"),
    ("t5", "tokenizer.json"),
    ("t5", "model.safetensors.index.json"),
    ("clip", "config.json"),
    ("clip", "tokenizer.json"),
    ("clip", "processor_config.json"),
]


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_folders_json_with_one_change(folders: dict[str, Path], kind: str, name: str) -> None:
    path = folders[kind] / name
    text = path.read_bytes()

    @CASES
    @given(st.one_of(mutated(json.loads(text)), mutated_text(text)))
    def check(mutant: Mutant | bytes) -> None:
        path.write_bytes(mutant if isinstance(mutant, bytes) else mutant.text)
        error = survives(lambda: load(kind, folders[kind]))
        assert error is None or isinstance(error, UserError)

    try:
        check()
    finally:
        path.write_bytes(text)


def test_a_tokenizer_with_one_change_reads_prompts_or_says_why_not(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    text = path.read_bytes()

    def read() -> None:
        conditioner = TokensConditioner.load(path, "lumina", W, (768, 512))
        for prompt in ("red apple", "ﬁ 日本 \x00", "r" * 300):
            encode(conditioner.tokenizer, prompt)

    @CASES
    @given(st.one_of(mutated(json.loads(text)), mutated_text(text)))
    def check(mutant: Mutant | bytes) -> None:
        path.write_bytes(mutant if isinstance(mutant, bytes) else mutant.text)
        error = survives(read)
        assert error is None or isinstance(error, UserError)

    check()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(normalizer={"type": "Replace", "pattern": {"Regex": ""}, "content": "x"}),
        lambda d: d["post_processor"].update(special_tokens={}),
        lambda d: d["post_processor"].update(special_tokens=None),
    ],
)
def test_what_would_panic_in_the_library_is_found_before(tmp_path: Path, change: Any, capfd: Any) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError):
        read_tokenizer(path, fix="")
    assert capfd.readouterr().err == ""  # where Rust writes of a panic


def features(path: Path, change: Any = lambda facts: None) -> dict[str, Any]:
    """The header of a file of two captions, and the file with `change` made to the metadata."""
    import hashlib

    captions, rows = ("a red apple", "star"), b"\0" * 8
    names = {key_of(caption): caption for caption in captions}
    facts: dict[str, Any] = metadata("enc", 7, names, dict.fromkeys(names, hashlib.sha256(rows).hexdigest()))
    change(facts)
    header = {"__metadata__": facts}
    for n, name in enumerate(sorted(names)):
        header[name] = {"dtype": "F32", "shape": [1, 2], "data_offsets": [8 * n, 8 * n + 8]}
    write_header(path, dump(header))
    return header


def write_header(path: Path, text: bytes) -> None:
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 16)


@settings(max_examples=150)
@given(data=st.data())
def test_metadata_of_features_with_one_change(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Of the header, and of the JSON that stands in it as text: captions, checksums."""
    path = tmp_path_factory.getbasetemp() / "features.safetensors"
    header = features(path)
    assert FeatureFile.open(path).get("star") is not None
    key = data.draw(st.sampled_from(["header", "captions", "checksums", "length", "encoder"]))
    if key == "header":
        write_header(path, data.draw(st.one_of(mutated(header).map(lambda m: m.text), mutated_text(dump(header)))))
    else:
        text = header["__metadata__"][key]
        inner = mutated_text(text)
        if key in ("captions", "checksums"):
            inner = st.one_of(inner, mutated(json.loads(text)).map(lambda m: m.text))
        changed = data.draw(inner).decode("utf-8", "replace")
        features(path, lambda facts: facts.update({key: changed}))

    def read() -> None:
        file = FeatureFile.open(path)
        for caption in file.captions.values():
            file.rows(caption)

    survives(read, most=80 << 20)

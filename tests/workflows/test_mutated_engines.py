"""An engine's own files with one thing wrong, hashes and fingerprint made to agree: an error of ours, or the same law.

Who changes a manifest can compute its keys again, so what is tested here is not the fingerprint but the reading.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coolsd_rt.backends import Description
from coolsd_rt.backends.description import NEIGHBOURS_FILE
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.conditions import VOCABULARY_FILE
from coolsd_rt.store import engine_fingerprint, open_engine, stage_key, staleness
from coolsd_rt.store.hashing import sha256_bytes
from coolsd_rt.store.manifest import MANIFEST
from coolsd_rt.workflows import opening
from tests.mutations import Mutant, changes, dump, mutated, mutated_text, survives
from tests.workflows.conftest import build_fake
from tests.workflows.fakes import DIMS, VOCABULARY

K = 5
Engines = Callable[[bytes], Path]


def fuzz(examples: int) -> settings:
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])


def neighbours() -> NDArray[np.int32]:
    codes = np.arange(DIMS.vocab, dtype=np.int32)
    return (codes[:, None] + np.arange(1, K + 1, dtype=np.int32)) % DIMS.vocab


def npy(table: NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.save(data, table, allow_pickle=False)
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake's engine with a table of neighbours, made by a stage `image`. Tests write over its files."""
    return build_fake(tmp_path_factory.mktemp("mutated"), neighbours=npy(neighbours()), k=K).folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return data


def hashed(data: Any) -> Any:
    """A manifest with the keys and the fingerprint that belong to what it says, as far as it has any."""
    try:
        stages = {name: {**s, "key": stage_key(name, s["inputs"])} for name, s in data["stages"].items()}
        fingerprint = engine_fingerprint({name: s["key"] for name, s in stages.items()}, data["build_view"])
        return {**data, "stages": stages, "fingerprint": fingerprint}
    except (KeyError, TypeError, AttributeError, ValueError):  # nothing that could be hashed
        return data


def opened(folder: Path) -> dict[str, Any]:
    """All that an engine's files bring into the law."""
    engine = open_engine(folder)
    verified = engine.verified()
    conditioner, near = opening.load_conditioner(verified), opening.load_neighbours(verified)
    staleness(engine.manifest, files={}, build_view={}, run_view={}, tools={}, code="", contract_version=1)
    return {
        "manifest": json.loads(engine.manifest.text()),
        "spec": opening.spec_of(engine),
        "description": opening.description_of(engine),
        "forced": opening.load_forced(engine),
        "conditioner": conditioner,
        "ids": [conditioner.encode(word).ids for word in ("red apple", "star")],
        "near": None if near is None else near.tolist(),
    }


def tried(folder: Path, text: bytes) -> dict[str, Any] | None:
    """What is opened of a folder with this manifest; None if it is refused."""
    (folder / MANIFEST).write_bytes(text)
    found: list[dict[str, Any]] = []
    refused = survives(lambda: found.append(opened(folder)))
    if refused is not None:
        assert refused.exit_code == 1, f"an engine's file is no mistake of who runs it: {refused}"
        return None
    return found[0]


@fuzz(1500)
@given(data=st.data())
def test_a_manifest_with_one_change_is_refused_or_read_as_it_stands(
    folder: Path, manifest: dict[str, Any], data: st.DataObject
) -> None:
    mutant = data.draw(mutated(manifest))
    told = hashed(mutant.data)
    if (found := tried(folder, dump(told))) is not None:
        assert found["manifest"] == {"parity": None, "spec_file": "", "schema_version": 1, **told}


@fuzz(1500)
@given(data=st.data())
def test_a_contract_is_refused_at_any_change(folder: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    mutant = data.draw(mutated(manifest, ("contract",)))
    if tried(folder, mutant.text) is not None:
        assert Description.from_dict(mutant.data["contract"]) == Description.from_dict(manifest["contract"])


@fuzz(500)
@given(data=st.data())
def test_a_manifests_text_with_one_change(folder: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    before = json.dumps(manifest)
    found = tried(folder, data.draw(mutated_text(before)))
    assert found is None or set(found["description"].dims.as_dict()) == set(DIMS.as_dict())

"""Recordings of a real engine: what is kept, resumed and refused, and the figures that follow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from coolsd_rt.cli.main import run
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law, make_omegas
from coolsd_rt.law.traces import outlook
from coolsd_rt.schedules.analysis import ambiguity
from coolsd_rt.schedules.analyze import RecordingConfig, analyze, recorded
from coolsd_rt.schedules.recording import HEAD, Recording
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, opening, totals
from tests.tiny import LENGTH, TARGET

PROMPTS = ("red apple", "blue star", "green leaf")


@pytest.fixture(scope="module")
def recording(tiny_engine: EngineFolder) -> Recording:
    return recorded(RecordingConfig(tiny_engine.folder, 60, PROMPTS, threads=1))[0]


def test_windows_are_what_the_rounds_saw(recording: Recording) -> None:
    w = recording.windows
    n = len(w.drafts)
    assert w.target.shape == w.draft.shape == (n, LENGTH, TARGET.vocab)
    np.testing.assert_allclose(w.target.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(w.draft.sum(-1), 1, atol=1e-5)
    index = np.arange(LENGTH)
    counted = index < w.num_drafts[:, None]
    drawn = np.take_along_axis(w.draft, w.drafts[..., None], -1)[..., 0]
    assert (drawn[counted] > 0).all()
    assert (recording.accepted <= w.num_drafts).all()
    # An image's rounds follow each other: each begins where the last one ended, the first at token 1.
    start = recording.position
    assert start.min() == 1
    assert start.max() < TARGET.tokens
    assert (w.num_drafts == np.minimum(LENGTH, TARGET.tokens - start - 1)).all()
    assert w.image is not None
    assert set(w.image) == set(range(60))
    for image in range(60):
        rows = w.image == image
        ends = 1 + np.cumsum(recording.accepted[rows] + 1)
        assert start[rows].tolist() == [1, *ends[:-1]]
        # All rounds with drafts are there: what is left needs none.
        assert ends[-1] >= TARGET.tokens - 1


def test_expectations_agree_with_what_happened(recording: Recording, tiny_engine: EngineFolder) -> None:
    """The accept length that the lossless rounds really had, and that of a relaxed law, drawn anew."""
    lossless = outlook(recording.windows, Law((1.0,) * LENGTH))
    assert lossless.kl == pytest.approx(0, abs=1e-6)
    happened = 1 + recording.accepted.mean()
    error = recording.accepted.std() / np.sqrt(len(recording.accepted))
    assert abs(lossless.accept_length - happened) < 5 * error

    law = Law(make_omegas("excess", LENGTH, beta=1.0, nu=0.3))
    expected = outlook(recording.windows, law).accept_length
    verified = tiny_engine.verified()
    engine, vocabulary = opening.load_engine(verified, 1), opening.load_conditioner(verified)
    settings = drawing.Settings(law, drawing.settings_of(_spec(tiny_engine)).sampling)
    parts = [
        drawing.draw(engine, batch, vocabulary, settings).statistics
        for batch in drawing.batches(drawing.plan(list(PROMPTS), 40, 7, vocabulary), 4)
    ]
    found = totals.total(parts, LENGTH).mean_acceptance_length
    assert expected > lossless.accept_length + 0.1
    # The recorded windows include the image's end, where the loop's last round without drafts is not recorded.
    assert found == pytest.approx(expected, abs=0.25)


def _spec(engine: EngineFolder):  # type: ignore[no-untyped-def]
    from coolsd_rt.spec import Spec

    return Spec.model_validate(engine.manifest.spec)


def test_ambiguity_is_what_a_plain_loop_finds(recording: Recording) -> None:
    found = ambiguity(recording, TARGET.grid)
    w, entropies, tvs = recording.windows, [], []
    rows: dict[int, list[float]] = {}
    for n in range(len(w.drafts)):
        for i in range(int(min(w.num_drafts[n], recording.accepted[n] + 1))):
            p, q = w.target[n, i].astype(float), w.draft[n, i].astype(float)
            entropies.append(-sum(x * np.log(x) for x in p if x > 0))
            tvs.append(0.5 * np.abs(p - q).sum())
            rows.setdefault(int(recording.position[n] + i) // TARGET.grid, []).append(tvs[-1])
    assert found.entropy == pytest.approx(np.mean(entropies))
    assert found.tv == pytest.approx(np.mean(tvs))
    assert found.tv_by_row == pytest.approx([np.mean(rows[r]) for r in range(TARGET.grid)])
    assert [b[0] for b in found.bins] == sorted(b[0] for b in found.bins)
    assert 0 < found.top5 < 1


def test_a_recording_goes_on_where_it_stopped(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    request = RecordingConfig(tiny_engine.folder, 8, PROMPTS, folder=tmp_path / "rec", threads=1)

    def stop(done: int, of: int) -> None:
        assert of == 2
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(request, stop)
    first = tmp_path / "rec" / "00000.npz"
    before = first.stat().st_mtime_ns
    assert sorted(p.name for p in first.parent.iterdir()) == ["00000.npz", HEAD]
    resumed = recorded(request)[0]
    assert first.stat().st_mtime_ns == before
    fresh = recorded(RecordingConfig(tiny_engine.folder, 8, PROMPTS, threads=1))[0]
    assert np.array_equal(resumed.windows.target, fresh.windows.target)
    assert np.array_equal(resumed.position, fresh.position)


def test_another_recording_is_refused_and_a_broken_one_named(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    recorded(RecordingConfig(tiny_engine.folder, 2, PROMPTS, folder=folder, threads=1))
    with pytest.raises(UserError, match="differs in seed"):
        recorded(RecordingConfig(tiny_engine.folder, 2, PROMPTS, seed=1, folder=folder, threads=1))
    with pytest.raises(UserError, match="images"):
        recorded(RecordingConfig(tiny_engine.folder, 0, PROMPTS))
    head = json.loads((folder / HEAD).read_text())
    (folder / HEAD).write_text(json.dumps({k: v for k, v in head.items() if k != "format"}))
    with pytest.raises(UserError, match=r"differs in format.*name another folder"):  # of a version without images
        recorded(RecordingConfig(tiny_engine.folder, 2, PROMPTS, folder=folder, threads=1))
    (folder / HEAD).write_text(json.dumps(head))
    (folder / "00000.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CoolsdError, match=r"00000\.npz.*a batch of a recording"):
        recorded(RecordingConfig(tiny_engine.folder, 2, PROMPTS, folder=folder, threads=1))


def test_the_command(tiny_engine: EngineFolder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(tiny_engine.folder), "-n", "2", "-p", "red apple", "--threads", "1"]
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 2
    assert len(document["tv_by_draft_position"]) == LENGTH
    assert document["schedules"]["none (lossless)"]["kl_per_token"] == pytest.approx(0, abs=1e-6)
    relaxed = document["schedules"]["uniform, delta 1.5"]
    for figure in ("mean_acceptance_length", "kl_per_token", "tv_bound_per_token"):
        assert relaxed[f"{figure}_error"] > 0
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "ambiguity against rejection" in out
    assert f"{relaxed['kl_per_token']:.4f} ± {relaxed['kl_per_token_error']:.4f}" in out
    assert analyze(RecordingConfig(tiny_engine.folder, 2, ("red apple",), threads=1)).rounds == document["rounds"]


def test_one_image_has_no_error(tiny_engine: EngineFolder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(tiny_engine.folder), "-n", "1", "-p", "red apple", "--threads", "1"]
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schedules"]["uniform, delta 2"]["kl_per_token_error"] is None
    assert run(words) == 0
    assert "±" not in capsys.readouterr().out


def test_the_schedule_of_a_spec_is_a_row(
    tiny_engine: EngineFolder, tiny_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that what `tune --write` wrote can be judged on fresh images."""
    shutil.copytree(tiny_spec.parent, tmp_path / "spec")
    spec = tmp_path / "spec" / tiny_spec.name
    data = yaml.safe_load(spec.read_text())
    omegas = [1.7, 1.4, 1.2]
    spec.write_text(yaml.safe_dump(data | {"schedule": {"kind": "custom", "values": omegas}}))
    words = ["analyze", str(tiny_engine.folder), "-n", "4", "-p", "red apple", "--threads", "1", "--spec", str(spec)]
    assert run([*words, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["schedules"]["as the spec has it"]
    windows = recorded(RecordingConfig(tiny_engine.folder, 4, ("red apple",), threads=1))[0].windows
    assert row["kl_per_token"] == pytest.approx(outlook(windows, Law(tuple(omegas))).kl_per_token)

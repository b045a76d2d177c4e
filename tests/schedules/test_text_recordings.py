"""`analyze` and `tune` on an engine that writes text: merged recordings, counts of texts, limits, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from coolsd_rt.cli.main import run
from coolsd_rt.law import Law
from coolsd_rt.law.traces import outlook
from coolsd_rt.schedules import merging
from coolsd_rt.schedules.analyze import LOSSLESS, RecordingConfig, recorded
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.texts_request import WriteConfig, write
from tools.paper import questions
from tools.paper.across import Wanted

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

PROMPTS = ("red apple", "star", "blue")


def words(verb: str, text_engine: EngineFolder, *more: str) -> list[str]:
    prompts = [word for prompt in PROMPTS for word in ("-p", prompt)]
    return [verb, str(text_engine.folder), *prompts, "--threads", "1", *more]


def test_recordings_are_merged_and_end_where_the_texts_do(text_engine: EngineFolder, tmp_path: Path) -> None:
    request = RecordingConfig(text_engine.folder, 24, PROMPTS, threads=1, folder=tmp_path / "rec")
    recording = recorded(request)[0]
    windows = recording.windows
    assert windows.merged
    assert windows.ends == (0, 1, 2, 3)
    assert windows.target.shape[-1] == merging.columns(4)
    np.testing.assert_allclose(windows.target.sum(-1), 1, atol=1e-5)
    assert (recording.entropy[windows.counts] > 0).all()
    assert (recording.top5[windows.counts] <= 1 + 1e-6).all()
    assert outlook(windows, Law((1.0,) * windows.length)).kl == pytest.approx(0, abs=1e-6)
    assert windows.image is not None
    # Rounds follow each other up to the text's last token, as the same texts say that are written without a recording.
    for n in set(windows.image.tolist()):
        rows = windows.image == n
        length = len(write(text_engine.folder, WriteConfig([PROMPTS[n % 3]], 1, n, LOSSLESS)).texts[0].ids)
        assert (recording.position[rows] + np.minimum(recording.accepted[rows], windows.length)).max() <= length
    again = recorded(request)[0]
    assert np.array_equal(again.windows.target, windows.target)


def test_analyze_counts_texts(text_engine: EngineFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words("analyze", text_engine, "-n", "6", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["texts"] == 6
    assert "images" not in document
    assert "tv_by_row" not in document
    assert document["mean_entropy_nats"] > 0
    assert run(words("analyze", text_engine, "-n", "6")) == 0
    out = capsys.readouterr().out
    assert "texts, rounds" in out
    assert "standard error over texts" in out
    assert "image" not in out


def test_a_limit_of_tokens_shortens_the_texts(text_engine: EngineFolder, tmp_path: Path) -> None:
    folder = str(tmp_path / "rec")
    assert run(words("analyze", text_engine, "-n", "6", "--json", "--max-tokens", "4", "--recording", folder)) == 0
    request = RecordingConfig(text_engine.folder, 6, PROMPTS, threads=1, folder=Path(folder), max_tokens=4)
    recording = recorded(request)[0]
    assert (recording.position + recording.windows.num_drafts < 4).all()


def test_what_is_refused(
    text_engine: EngineFolder, tiny_engine: EngineFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "rec")
    assert run(words("analyze", text_engine, "-n", "4", "--max-tokens", "5", "--recording", folder)) == 0
    assert run(words("analyze", text_engine, "-n", "4", "--max-tokens", "6", "--recording", folder)) == 2
    assert "differs in max_tokens" in capsys.readouterr().err
    assert run(words("analyze", text_engine, "-n", "4", "--max-tokens", "17")) == 2
    assert "1 to 16" in capsys.readouterr().err
    assert run(words("analyze", tiny_engine, "-n", "4", "--max-tokens", "4")) == 2
    assert "which draws images" in capsys.readouterr().err


def test_tune_writes_a_spec(text_engine: EngineFolder, text_spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = text_spec.parent / "tuned.yaml"
    assert run(words("tune", text_engine, "-n", "32", "--kl", "0.05", "--json", "--write", str(tuned))) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["texts"]["recorded"] <= 32
    assert document["best"]["intervals"]["kl_per_token"][1] <= 0.05 + 1e-9
    assert yaml.safe_load(tuned.read_text())["schedule"]["values"] == document["best"]["omegas"]
    assert "texts, drafts in every round" in tuned.read_text().replace("\n# ", " ")
    assert run(words("tune", text_engine, "-n", "32", "--kl", "0.05")) == 0
    assert "held-out texts" in capsys.readouterr().out


def test_the_table_of_the_papers_questions(text_engine: EngineFolder, tmp_path: Path) -> None:
    bench = questions.open_bench(text_engine.folder, 20, max_tokens=12, prompts=PROMPTS)
    said: list[str] = []
    wanted = Wanted(lengths=(1, 2), distances=(0.3, 0.6), pilots=(1.0, 4.0))
    printed = questions.write_table(bench, tmp_path, said.append, wanted, overwrite=False)
    document = json.loads((tmp_path / "texts.json").read_text())
    assert document["max_tokens"] == 12
    assert [row["length"] for row in document["rows"]] == [1, 2, 1, 2]
    distances = [row["tv"] for row in document["rows"] if row["length"] == 2]
    assert distances[0] < distances[-1]
    for row in document["rows"]:
        assert row["lossless"] <= row["accept_length"]["optimum"] + 0.05
        assert max(row["kl"].values()) <= 0.02 + 1e-6
    assert printed.count("| texts |") == len(document["rows"])

"""The table of the decoder's forms: turns, PSNR, and a run on a small tokenizer. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.tiny import IMAGE, networks, write_weights
from tools.image_decoder import EXPORTED, REWRITTEN, main, psnr


def test_psnr_is_of_pixels_from_minus_one_to_one() -> None:
    flat = np.zeros((1, 3, 2, 2), np.float32)
    assert psnr(flat, flat) == float("inf")
    assert psnr(flat + np.float32(2 / 255), flat) == pytest.approx(48.13, abs=0.01)  # one level of a byte
    assert psnr(flat + np.float32(2), flat) == pytest.approx(0)


def test_both_forms_of_a_tokenizer_are_timed_and_agree(tmp_path: Path) -> None:
    weights, out = tmp_path / "vq.safetensors", tmp_path / "f.json"
    write_weights(weights, networks()[2], IMAGE)
    words = [str(weights), "--grid", "4", "--images", "2", "--runs", "2", "--threads", "1", "--json", str(out)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    forms = json.loads(out.read_text())["forms"]
    assert list(forms) == [EXPORTED, REWRITTEN]
    assert forms[EXPORTED]["cpu_ms_ratio"] == forms[EXPORTED]["wall_ms_ratio"] == 1
    assert all(form["psnr"] > 100 for form in forms.values())


def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    done = CliRunner().invoke(main, [str(tmp_path / "x.safetensors")])
    assert done.exit_code != 0
    assert "Traceback" not in done.output

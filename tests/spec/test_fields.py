"""What a Python caller asks for is checked as it is made, and what is wrong is a sentence that names the field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.bench import run as bench
from coolsd_rt.bench import variants
from coolsd_rt.errors import UserError
from coolsd_rt.quality import run as quality_run
from coolsd_rt.schedules import analyze
from coolsd_rt.sweep import run as sweep
from coolsd_rt.workflows import opening
from coolsd_rt.workflows.generate import run as generate

HERE = Path("here")
# Of any type: what is given here is wrong on purpose.
Request: Any = generate.GenerateConfig
Bench: Any = bench.BenchConfig
Sweep: Any = sweep.SweepConfig
Analyze: Any = analyze.RecordingConfig
Choice: Any = variants.VariantChoice
Wanted: Any = quality_run.QualityMeasures
Reading: Any = opening.PromptInputs


def test_words_become_paths_and_lists_tuples() -> None:
    assert Request(["red apple"], "dir").out == Path("dir")
    assert Reading("a", HERE) == Reading(Path("a"), HERE)
    assert Sweep("e", "s.yaml", "out").sweep == Path("s.yaml")
    assert Analyze(HERE, prompts=["red apple"]).prompts == ("red apple",)
    assert Choice(deltas=[1, 2.5]).deltas == (1.0, 2.5)
    assert replace(Request(["red apple"]), out="there").out == Path("there")


def test_numpys_numbers_become_pythons() -> None:
    request = Request(["red apple"], seed=np.uint64(2**64 - 1), variants=np.int32(2))
    assert (request.seed, type(request.seed), request.variants) == (2**64 - 1, int, 2)
    asked = Bench(HERE, confidence=np.float32(0.5))
    assert (asked.confidence, type(asked.confidence)) == (0.5, float)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Request("red"), r"^prompts: expected a list of texts, found 'red'; write \['red'\]$"),
        (lambda: Request(["a", 3]), r"^prompts\[1\]: expected a text, found 3$"),
        (lambda: Request([], 3), r"^out: expected a path, found 3$"),
        (lambda: Request([], seed=1.5), r"^seed: expected a whole number from 0 to 2\^64-1, found 1.5$"),
        (lambda: Request([], seed=True), r"^seed: .*found true$"),
        (lambda: Request([], seed="7"), r'^seed: .*found "7"$'),
        (lambda: Request([], seed=-1), r"^seed: "),
        (lambda: Request([], seed=float("nan")), r"^seed: "),
        (lambda: Request([], seed=10**5000), r"^seed: .*found a number of thousands of digits$"),
        (lambda: Request([], variants=0), r"^variants: expected a whole number from 1 to 100000, found 0$"),
        (lambda: Request([], draft_length=10**6), r"^draft_length: expected a whole number from 1 to 65536"),
        (lambda: Request([], threads=0), r"^threads: "),
        (lambda: Request([], plain="yes"), r"^plain: expected True or False, found 'yes'$"),
        (lambda: Request([], overrides=[1]), r"^overrides: expected a mapping"),
        (lambda: Request([], draft=3), r"^draft: expected a text, found 3$"),
        (lambda: Request([], features=b"\xff", text_encoder=3), r"^(features|text_encoder): expected a path"),
        (lambda: Bench(HERE, runs=0), r"^runs: expected a whole number from 1 to 10000, found 0$"),
        (lambda: Bench(HERE, confidence=1.5), r"^confidence: expected a number from 0 to 1, found 1.5$"),
        (lambda: Bench(HERE, choice=3), r"^choice: expected a VariantChoice, found 3$"),
        (lambda: Choice(deltas=(1.1, float("inf"))), r"^deltas\[1\]: expected a number from 0 to 1e6"),
        (lambda: Choice(draft_lengths=(0,)), r"^draft_lengths\[0\]: expected a whole number from 1 to 65536"),
        (lambda: Analyze(HERE, images=1.0), r"^images: .*found 1.0$"),
        (lambda: Sweep(HERE, HERE, None), r"^out: expected a path, found None$"),
        (lambda: Wanted(crop=1), r"^crop: expected True or False, found 1$"),
        (lambda: replace(Request([]), seed=0.5), r"^seed: "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()

"""`coolsd_rt.Pipeline`: the command's images, by a call; options by name, callbacks, threads, and its errors."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coolsd_rt
from coolsd_rt import Pipeline, PipelineOutput, UserError
from coolsd_rt.backends import Description
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import opening, png
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from tests.workflows.fakes import DIMS, SIDE, FakeEngine, FakeSession
from tests.workflows.test_prefixes import FORCED

PROMPTS = ["red apple", "yellow star", "green apple"]


@pytest.fixture
def pipe(engine: Path) -> Pipeline:
    return Pipeline.load(engine)


def pixels(output: PipelineOutput) -> list[bytes]:
    return [image.tobytes() for image in output.images]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "request_of"),
    [
        ({}, {}),
        ({"images_per_prompt": 2, "seed": 7}, {"variants": 2, "seed": 7}),
        ({"guidance_scale": 1.0}, {"overrides": {"sampling.cfg_scale": 1.0}}),
        ({"schedule": {"delta": 2.0, "nu": 0.3}}, {"overrides": {"schedule.delta": 2.0, "schedule.nu": 0.3}}),
        ({"schedule": "none", "top_k": 5}, {"overrides": {"schedule.kind": "none", "sampling.top_k": 5}}),
        ({"resampler": "residual", "top_p": 0.8}, {"overrides": {"resampler.kind": "residual", "sampling.top_p": 0.8}}),
        (
            {"temperature": 0.5, "cfg_interval": 3},
            {"overrides": {"sampling.temperature": 0.5, "sampling.cfg_interval": 3}},
        ),
        ({"pacing": {"confidence": 0.2}}, {"overrides": {"pacing.confidence": 0.2}}),
        ({"plain": True}, {"plain": True}),
        ({"draft": "jacobi", "draft_length": 4}, {"draft": "jacobi", "draft_length": 4}),
    ],
    ids=lambda value: ",".join(value),
)  # fmt: skip
def test_a_call_draws_what_the_command_draws(
    engine: Path, pipe: Pipeline, tmp_path: Path, options: dict[str, Any], request_of: dict[str, Any]
) -> None:
    """Pixels, provenance, file names and the contact sheet: to the byte."""
    report = generate(engine, GenerateConfig(PROMPTS, tmp_path / "command", **request_of))
    output = pipe(PROMPTS, **options)
    paths = output.save(tmp_path / "call")
    assert files(tmp_path / "call") == files(tmp_path / "command")
    assert [path.name for path in paths] == [one.path.name for one in report.drawn]
    for record, one in zip(output.records, report.drawn, strict=True):
        assert (record.prompt, record.seed) == (one.job.prompt, one.job.seed)
        assert record.provenance == png.read_provenance(one.path)
        assert np.array_equal(np.asarray(record.image), png.read_pixels(one.path))
    assert output.stats.mean_acceptance_length == report.statistics.mean_acceptance_length
    assert list(output.stats.acceptance_by_position) == report.statistics.acceptance_by_position


def test_a_real_engine_draws_what_the_command_draws(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    generate(tiny_engine.folder, GenerateConfig(["red apple", "blue star"], tmp_path / "command", 3, seed=5))
    with Pipeline.load(tiny_engine.folder, threads=1) as pipe:
        pipe(["red apple", "blue star"], images_per_prompt=3, seed=5).save(tmp_path / "call")
    assert files(tmp_path / "call") == files(tmp_path / "command")


def test_the_result_has_everything_beside_each_image(pipe: Pipeline) -> None:
    output = pipe(["red apple", "blue star"], num_images_per_prompt=2, seed=3)
    assert [(r.index, r.prompt, r.seed) for r in output.records] == [
        (0, "red apple", 3),
        (1, "red apple", 4),
        (2, "blue star", 3),
        (3, "blue star", 4),
    ]
    assert [image.size for image in output.images] == [(SIDE, SIDE)] * 4
    assert all(r.tokens.shape == (DIMS.tokens,) and r.tokens.dtype == np.int64 for r in output.records)
    assert output.stats.images == 4
    assert output.stats.tokens == 4 * DIMS.tokens
    assert output.stats.loop == "host"
    assert sum(s or 0.0 for s in output.stats.seconds_by_phase.values()) == pytest.approx(output.stats.seconds)
    assert output.stats.tokens_per_second == pytest.approx(output.stats.tokens / output.stats.seconds)
    (warning,) = output.warnings
    assert "blue" in warning
    with pytest.raises(ValueError, match="read-only"):
        output.records[0].tokens[0] = 1


def test_seeds_name_each_image(pipe: Pipeline) -> None:
    whole = pipe(["red apple", "yellow star"], images_per_prompt=2, seeds=[5, 9, 5, 0])
    assert [record.seed for record in whole.records] == [5, 9, 5, 0]
    for place, (prompt, seed) in enumerate(
        [("red apple", 5), ("red apple", 9), ("yellow star", 5), ("yellow star", 0)]
    ):
        assert pixels(pipe(prompt, seed=seed)) == [pixels(whole)[place]]
    of_numpy: dict[str, Any] = {"images_per_prompt": np.int64(2), "seeds": np.array([5, 9, 5, 0])}
    assert pixels(pipe(["red apple", "yellow star"], **of_numpy)) == pixels(whole)


def test_seeds_count_on_from_zero_after_the_last(pipe: Pipeline) -> None:
    output = pipe("red apple", images_per_prompt=2, seed=2**64 - 1)
    assert [record.seed for record in output.records] == [2**64 - 1, 0]
    assert pixels(output)[1:] == pixels(pipe("red apple", seed=0))
    with pytest.raises(UserError, match=r"^seed: expected a whole number from 0 to 2\^64-1, found "):
        pipe("red apple", seed=2**64)


def test_an_engines_forced_tokens_are_in_every_image(engine: Path) -> None:
    open_engine(engine).with_manifest(contract={**Description(DIMS, 3, SIDE).as_dict(), "forced": list(FORCED)})
    where = np.asarray(FORCED) >= 0
    for options in ({}, {"plain": True}, {"draft": "jacobi"}):
        for record in Pipeline.load(engine)(PROMPTS, **options).records:
            assert (record.tokens[where] == np.asarray(FORCED)[where]).all()


def test_callbacks_hear_of_every_round(pipe: Pipeline) -> None:
    heard: list[tuple[Any, ...]] = []
    bar: list[tuple[int, int]] = []

    def on_step_end(pipeline: Pipeline, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        progress = kwargs["progress"]
        assert isinstance(progress, coolsd_rt.Progress)
        heard.append((pipeline, step, timestep, progress.codes(), progress.decided.copy()))
        return kwargs

    output = pipe(PROMPTS, callback_on_step_end=on_step_end, on_progress=lambda done, of: bar.append((done, of)))
    total = 3 * DIMS.tokens
    assert [step for _, step, _, _, _ in heard] == list(range(len(heard)))
    assert {pipeline for pipeline, *_ in heard} == {pipe}
    done = [timestep for _, _, timestep, _, _ in heard]
    assert done == sorted(done)
    assert done[-1] == total
    assert bar == [(d, total) for d in done]
    for *_, codes, decided in heard[:3]:  # of the first batch, which has two images
        for record, row, count in zip(output.records, codes, decided, strict=False):
            assert np.array_equal(row[:count], record.tokens[:count])


def test_what_a_callback_raises_ends_the_call_and_no_more(pipe: Pipeline) -> None:
    def stop(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        pipe(PROMPTS, on_progress=stop)
    assert len(pipe("red apple").images) == 1


def test_a_call_inside_a_callback_is_refused_and_not_waited_for(pipe: Pipeline) -> None:
    with pytest.raises(UserError, match="expected no other call of this thread under way"):
        pipe("red apple", on_progress=lambda *_: pipe("red apple"))
    assert len(pipe("red apple").images) == 1


class Alone(FakeEngine):
    """Counts how many batches are under way at once."""

    inside = most = 0

    def open(self, prefix: Any, capacity: int, start: Any = None) -> FakeSession:
        Alone.inside += 1
        Alone.most = max(Alone.most, Alone.inside)
        time.sleep(0.002)  # another thread's moment
        return super().open(prefix, capacity, start)

    def decode_images(self, codes: Any) -> Any:
        Alone.inside -= 1
        return super().decode_images(codes)


def test_threads_take_turns_and_get_their_own_images(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_engine", lambda *_: Alone())
    pipe = Pipeline.load(engine)
    alone = {seed: pixels(pipe("red apple", seed=seed)) for seed in range(8)}
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(range(8), pool.map(lambda seed: pixels(pipe("red apple", seed=seed)), range(8)), strict=True))
    assert found == alone
    assert Alone.most == 1


def test_the_loop_is_chosen_and_told(pipe: Pipeline) -> None:
    assert pixels(pipe("red apple", loop="host")) == pixels(pipe("red apple", loop="auto"))
    with pytest.raises(UserError, match='loop="device": expected an engine'):
        pipe("red apple", loop="device")


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (5, {}, "prompts: expected a text or a list of texts, found 5"),
    ([], {}, "prompts: expected at least one, found none"),
    (["red apple", 5], {}, "prompts[1]: expected a text, found 5"),
    ("", {}, "expected at least one word"),
    ("x", {"images_per_prompt": "2"}, "images_per_prompt: expected a whole number from 1 to 100000, found \"2\""),
    ("x", {"images_per_prompt": 0}, "images_per_prompt: expected a whole number from 1 to 100000, found 0"),
    ("x", {"images_per_prompt": 1, "num_images_per_prompt": 2}, "num_images_per_prompt: expected images_per_prompt or"),
    ("x", {"seed": -1}, "seed: expected a whole number from 0"),
    ("x", {"seed": [1, 2]}, "seed: expected one whole number, found [1, 2]; give a seed for each image as seeds="),
    ("x", {"prompt": "y"}, "prompt: expected an option of this call, found an unknown name; give the"),
    ("x", {"seed": 1, "seeds": [1]}, "seeds: expected seed or seeds, found both"),
    ("x", {"seeds": [1, 2]}, "seeds: expected 1, one for each image, found 2"),
    ("x", {"seeds": ["a"]}, "seeds[0]: expected a whole number"),
    ("x", {"seeds": 5}, "seeds: expected a list of whole numbers, found 5"),
    ("x", {"guidance_scale": "2"}, "guidance_scale: expected "),
    ("x", {"guidance_scale": 0.0}, "guidance_scale: expected "),
    ("x", {"top_k": 1.5}, "top_k: expected "),
    ("x", {"schedule": 5}, "schedule: expected a kind or a mapping, found 5"),
    ("x", {"schedule": "steep"}, "schedule['kind']: expected "),
    ("x", {"schedule": {"dleta": 1.1}}, "schedule['dleta']: "),
    ("x", {"schedule": {"delta": "1"}}, "schedule['delta']: expected "),
    ("x", {"schedule": {5: 1}}, "schedule: expected keys of the spec's section, found 5"),
    ("x", {"schedule": {"a.b": 1}}, "schedule: expected keys of the spec's section, found 'a.b'"),
    ("x", {"acceptance": {"rule": "lantern", "bound": 0.1}}, "acceptance['neighbours']: expected a value"),
    ("x", {"acceptance": "lantern"}, "2 problems: (1) acceptance['bound']: expected a value (the rule 'lantern' needs "
     "one), found nothing; (2) acceptance['neighbours']: expected a value"),
    ("x", {"schedule": {"delta": -1.0, "nu": -1.0}}, "2 problems: (1) schedule['delta']: expected a number from 0 to "
     "1e6, found -1.0; (2) schedule['nu']: expected "),
    ("x", {"pacing": "fast"}, "pacing['kind']: expected one of auto, manual, found"),
    ("x", {"pacing": 1.0}, "pacing: expected a kind or a mapping, found 1.0"),
    ("x", {"draft_length": 0}, "draft_length: expected a whole number from 1"),
    ("x", {"draft_length": 17}, "the draft length: expected at most the image's 16 tokens, found 17"),
    ("x", {"draft": "medusa"}, "the draft: expected one of jacobi, jacobi-coupled, jacobi-gumbel, ngram, found medusa"),
    ("x", {"plain": "yes"}, "plain: expected True or False, found 'yes'"),
    ("x", {"plain": True, "schedule": "none"}, "plain decoding: expected no draft"),
    ("x", {"loop": "gpu"}, "loop: expected one of auto, host or device, found 'gpu'"),
    ("x", {"on_progress": 5}, "on_progress: expected a function, found 5"),
    ("x", {"callback_on_step_end": "f"}, "callback_on_step_end: expected a function, found 'f'"),
    ("x", {"num_inference_steps": 50}, "found an unknown name; there are no denoising steps: each"),
    ("x", {"generator": None}, "generator: expected an option of this call, found an unknown name; give"),
    ("x", {"cfg_scale": 2.0}, "the option is named guidance_scale"),
    ("x", {"temprature": 2.0}, "did you mean 'temperature'?"),
    ("x", {"zzz": 2.0}, "zzz: expected an option of this call, found an unknown name; there are: images_per_prompt, "),
]  # fmt: skip


@pytest.mark.parametrize(("prompts", "options", "message"), WRONG, ids=[message[:40] for _, _, message in WRONG])
def test_a_wrong_argument_is_one_line(pipe: Pipeline, prompts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        pipe(prompts, **options)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)  # no option of the command line
    assert " -p" not in str(caught.value)
    assert len(pipe("red apple").images) == 1  # and it draws on


def test_prompts_by_another_name_or_none_at_all_are_one_line(pipe: Pipeline) -> None:
    """`prompt=` is what other libraries call it; without a first argument it would be Python's own TypeError."""
    for call in (pipe, pipe.stream):
        with pytest.raises(UserError, match=r"^prompt: expected .*give the prompts as the first argument"):
            call(prompt="red apple")  # type: ignore[call-arg]
        with pytest.raises(UserError, match=r"^prompts: expected at least one, found none"):
            call()


@pytest.mark.parametrize("options", [{"on_progress": print}, {"callback_on_step_end": print}, {"partial_images": -1}])
def test_a_stream_has_no_callbacks(pipe: Pipeline, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))}: expected "):
        pipe.stream("red apple", **options)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"engine": 5}, "engine: expected a path"),
        ({"engine": "nowhere"}, "nowhere: expected an engine"),
        ({"threads": "2"}, "threads: expected a whole number"),
        ({"features": 5}, "features: expected a path"),
        ({"text_encoder": 5}, "text_encoder: expected a path"),
    ],
)
def test_load_says_what_is_wrong(engine: Path, argument: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Pipeline.load(**{"engine": engine, **argument})


def test_a_spec_is_built_first(
    tiny_spec: Path, tiny_out: Path, tiny_engine: EngineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "engines").symlink_to(tiny_out)  # where every stage is cached
    with Pipeline.load(tiny_spec) as pipe:
        assert pipe.name == "tiny"
        assert pipe.folder.name == tiny_engine.manifest.fingerprint

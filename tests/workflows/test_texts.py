"""Texts with a built engine: ends, limits, slots, streams, and the same texts by every way that writes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import coolsd_rt as cool
from coolsd_rt.backends.torch.eager import load as load_eager
from coolsd_rt.cli.main import run
from coolsd_rt.errors import UserError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.build.run import plan
from coolsd_rt.workflows.parity.images import ImageParity, compare_images
from coolsd_rt.workflows.texts_request import WriteConfig, write
from tests.workflows.family_pipelines import write_pipeline

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

PROMPTS = ["red apple", "star", "blue"]


def test_texts_end_at_a_token_or_at_their_limit(text_engine: EngineFolder) -> None:
    texts = write(text_engine.folder, WriteConfig(PROMPTS, 8)).texts
    ends = set(cool.Pipeline.load(text_engine.folder)._engine().settings().bounds.ends)  # type: ignore[union-attr]
    assert {text.reason for text in texts} == {"stop", "length"}
    for text in texts:
        assert not ends & set(text.ids[:-1])
        assert (text.reason == "stop") == (text.ids[-1] in ends)
        assert text.reason == "stop" or len(text.ids) == 16


def test_a_text_depends_on_its_prompt_seed_and_settings_alone(text_engine: EngineFolder) -> None:
    """Not on texts beside it, nor on whether it has a limit that it does not reach."""
    many = write(text_engine.folder, WriteConfig(PROMPTS, 5)).texts
    for text in many[::4]:
        alone = write(text_engine.folder, WriteConfig([text.job.prompt], 1, text.job.seed)).texts[0]
        assert (alone.ids, alone.text, alone.reason) == (text.ids, text.text, text.reason)


def test_plain_texts_with_limits(text_engine: EngineFolder) -> None:
    """Without drafts a limit cuts a text and changes nothing before."""
    whole = write(text_engine.folder, WriteConfig(PROMPTS, 4, plain=True)).texts
    short = write(text_engine.folder, WriteConfig(PROMPTS, 4, plain=True, max_tokens=3)).texts
    for long, cut in zip(whole, short, strict=True):
        assert cut.ids == long.ids[:3]
        assert cut.reason == (long.reason if len(long.ids) <= 3 else "length")


def test_greedy_texts_are_the_same_whatever_drafts(text_engine: EngineFolder) -> None:
    greedy = {"sampling.temperature": 0.0, "sampling.top_k": 0}
    plain = write(text_engine.folder, WriteConfig(PROMPTS, overrides=greedy, plain=True)).texts
    lossless = {**greedy, "schedule.kind": "none"}
    for draft in (None, "jacobi", "jacobi-coupled"):
        drafted = write(text_engine.folder, WriteConfig(PROMPTS, overrides=lossless, draft=draft)).texts
        assert [text.ids for text in drafted] == [text.ids for text in plain]


def test_every_way_writes_the_same(text_engine: EngineFolder, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = write(text_engine.folder, WriteConfig(PROMPTS, 2, 5)).texts
    with cool.Pipeline.load(text_engine.folder) as pipe:
        output = pipe(PROMPTS, images_per_prompt=2, seed=5)
        assert [text.ids for text in output.written] == [text.ids for text in wanted]
        assert output.texts == [text.text for text in wanted]
        assert output.stats.tokens == sum(len(text.ids) for text in wanted)
        parts: dict[int, str] = {}
        for part in pipe.stream_text(PROMPTS, images_per_prompt=2, seed=5):
            parts[part.job.index] = parts.get(part.job.index, "") + part.text
        assert [parts.get(text.job.index, "") for text in wanted] == output.texts
        assert pipe("star", seed=5).text == wanted[2].text
        with pytest.raises(UserError, match="text: expected a call for one text, found 6 texts"):
            _ = output.text
    assert run(["generate", str(text_engine.folder), "-p", "star", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    assert out == wanted[2].text + "\n"
    assert "tokens/s" in err
    words = [word for prompt in PROMPTS for word in ("-p", prompt)]
    assert run(["generate", str(text_engine.folder), *words, "-n", "2", "--seed", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["texts"]
    assert [text["text"] for text in told] == [text.text for text in wanted]
    assert [text["tokens"] for text in told] == [len(text.ids) for text in wanted]


def test_a_long_prompt_is_run_in_parts(text_engine: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 positions here, as for a vocabulary of 65,536: the same text, whatever is beside it."""
    long = " ".join(["red apple star blue of"] * 28)
    wanted = write(text_engine.folder, WriteConfig([long, "star"], 3)).texts
    assert len(wanted[0].job.encoded.ids) > 2 * 64
    monkeypatch.setattr("coolsd_rt.runtime.batch._PREFIX_LOGITS", 0)
    assert [t.ids for t in write(text_engine.folder, WriteConfig([long, "star"], 3)).texts] == [t.ids for t in wanted]
    assert write(text_engine.folder, WriteConfig([long])).texts[0].ids == wanted[0].ids


def test_guided_texts(text_engine: EngineFolder) -> None:
    guided = {"sampling.cfg_scale": 2.0}
    texts = write(text_engine.folder, WriteConfig(["red apple"], 4, overrides=guided)).texts
    assert [t.ids for t in texts] != [t.ids for t in write(text_engine.folder, WriteConfig(["red apple"], 4)).texts]


def test_a_system_message_and_a_text_to_continue(text_engine: EngineFolder) -> None:
    chat = write(text_engine.folder, WriteConfig(["star"])).texts[0].job.encoded.ids
    with_system = write(text_engine.folder, WriteConfig(["star"], system="red")).texts[0].job.encoded.ids
    raw = write(text_engine.folder, WriteConfig(["star"], raw=True)).texts[0].job.encoded.ids
    assert len(with_system) > len(chat) > len(raw)
    with pytest.raises(UserError, match="a system message: expected a chat"):
        write(text_engine.folder, WriteConfig(["star"], raw=True, system="red"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-tokens", "17"], "max tokens: expected 1 to 16, the text.length of the engine, found 17"),
        (["--max-tokens", "0"], "--max-tokens: expected a whole number from 1 to 65536, found 0"),
        (["--out", "x"], "--out: expected an engine that draws images"),
        (["--overwrite"], "--overwrite: expected an engine that draws images"),
    ],
)
def test_options_that_do_not_fit(
    text_engine: EngineFolder, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(["generate", str(text_engine.folder), "-p", "star", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["batch", "sweep", "quality"])
def test_verbs_of_images_refuse_it(
    text_engine: EngineFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    (tmp_path / "prompts.txt").write_text("star\n")
    (tmp_path / "captions.json").write_text('[{"id": 1, "caption": "star"}]')
    (tmp_path / "sweep.yaml").write_text("version: 1\nimages: 4\npoints: {a: {set: {schedule.kind: none}}}\n")
    words = {
        "batch": [str(tmp_path / "prompts.txt")],
        "sweep": [str(tmp_path / "sweep.yaml")],
        "quality": ["--prompts", str(tmp_path / "captions.json")],
    }
    assert run([verb, str(text_engine.folder), *words[verb], "--out", str(tmp_path / "out")]) == 2
    assert "expected an engine that draws images, found one that writes text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_texts_on_an_engine_of_images(tiny_engine: EngineFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--raw"], ["--system", "x"], ["--max-tokens", "3"]):
        assert run(["generate", str(tiny_engine.folder), "-p", "star", *words]) == 2
        assert f"{words[0]}: expected an engine that writes text" in capsys.readouterr().err
    with cool.Pipeline.load(tiny_engine.folder) as pipe:
        with pytest.raises(UserError, match="max_tokens: expected an engine that writes text"):
            pipe("star", max_tokens=3)
        with pytest.raises(UserError, match="expected an engine that writes text, found one that draws images"):
            pipe.stream_text("star")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("text: {length: 16", "text: {length: 17", "text.length: expected tokens 16, as the target has, found 17"),
        ('"red", "of"', '"<stop>"', "text.end: expected tokens of the tokenizer, found '<stop>'"),
        ("chat.jinja", "chat.yaml", "condition.chat_template"),
        ("text: {", "image: {tokenizer: vq, weights: vq.safetensors}\ntext: {", "found both"),
        ("model: llama", "model: janus-pro", "target.model: expected llama, to write text"),
    ],
)
def test_specs_that_do_not_fit(text_spec: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write_pipeline(tmp_path, "llama")
    path.write_text(text_spec.read_text().replace(old, new))
    with pytest.raises(UserError) as caught:
        plan(load_spec(path), tmp_path / "engines")
    assert said in str(caught.value)


def test_first_tokens_that_differ_are_explained(text_engine: EngineFolder, text_spec: Path) -> None:
    """Beside a reference with sharper logits: every difference is found again from the first prompt's start on."""
    files, verified = load_spec(text_spec).files, text_engine.verified()
    reference = load_eager(files["target.weights"], files["draft.weights"], None)
    with torch.no_grad():
        reference._target.norm.weight.mul_(1.5)
    conditioner = opening.load_conditioner(verified)
    settings = replace(drawing.settings_of(load_spec(text_spec).spec, forced=None), bounds=drawing.TextBounds())
    jobs, out = drawing.plan(PROMPTS, 8, 0, conditioner), ImageParity()
    compare_images(opening.load_engine(verified), reference, jobs, conditioner, settings, out)
    assert out.unexplained == 0
    assert "first token" in {found.decision for found in out.differences}

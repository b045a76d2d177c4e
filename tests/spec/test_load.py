"""Every way a spec can be wrong, said with its line, what was expected and what was found."""

# ruff: noqa: E501 (the table of mistakes reads best with one line a case)

from __future__ import annotations

from pathlib import Path

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.spec import SpecError, load_spec
from tests.spec.conftest import GOOD, Write


def test_good_spec_is_resolved(write: Write) -> None:
    loaded = load_spec(write())
    assert loaded.spec.draft.length == 5
    assert loaded.spec.resolved()["schedule"] == {"kind": "exponential", "delta": 1.1, "nu": 0.7, "floor": 1.0}
    assert loaded.spec.resampler.kind == "optimal"
    assert loaded.files["target.weights"] == (loaded.folder / "w/target.safetensors").resolve()
    assert set(loaded.files) == {"target.weights", "draft.weights", "image.weights", "condition.vocab"}


WORDS = "{kind: words, vocab: w/vocab.json}"

# piece of the good spec, what stands there instead, and all that the one line must say
BAD = {
    "unknown model": ("model: llamagen", "model: llamagn", [":3: target.model: expected one of llamagen, llamagen-c2i", '"llamagn"', "did you mean 'llamagen'?"]),
    "unknown draft": ("model: eagle", "model: medusa", [":4: draft.model: expected one of eagle", '"medusa"']),
    "unknown rule": ("version: 1", "acceptance: {rule: lanter}\nversion: 1", [":1: acceptance.rule: expected one of ratio, lantern, lantern_pp, per_position, synthetic", '"lanter"', "did you mean 'lantern'?"]),
    "no rule": ("version: 1", "acceptance: {}\nversion: 1", [":1: acceptance.rule: expected one of ratio", "found nothing"]),
    "rule a word": ("version: 1", "acceptance: ratio\nversion: 1", ['acceptance: expected a mapping, found "ratio"; write {rule: ratio}']),
    "rule beside a schedule": ("version: 1", "acceptance: {rule: lantern, bound: 0.1, neighbours: 5}\nversion: 1", [":1: acceptance.rule: expected the schedule none", "found the schedule exponential"]),
    "bound above 1": ("version: 1", "acceptance: {rule: lantern, bound: 1.1, neighbours: 5}\nversion: 1", [":1: acceptance.bound: expected a number from 0 to 1"]),
    "factor below 1": ("version: 1", "acceptance: {rule: lantern_pp, factor: 0.9, neighbours: 5}\nversion: 1", [":1: acceptance.factor: expected a number from 1 to 1e6"]),
    "bound of another rule": ("version: 1", "acceptance: {rule: lantern_pp, bound: 0.1, factor: 2, neighbours: 5}\nversion: 1", [":1: acceptance.bound: expected one of rule, factor, neighbours"]),
    "more neighbours than built": ("kind: exponential, delta: 1.1}", "kind: none}\nacceptance: {rule: lantern, bound: 0.1, neighbours: 65}", [":8: acceptance.neighbours: expected at most the 64", "found 65"]),
    "too few rates": ("kind: exponential, delta: 1.1}", "kind: none}\nacceptance: {rule: synthetic, rates: [0.5]}", [":8: acceptance.rates: expected 5 values", "found 1"]),
    "a rate above 1": ("kind: exponential, delta: 1.1}", "kind: none}\nacceptance: {rule: synthetic, rates: [1, 1, 1, 1, 1.1]}", [":8: acceptance.rates[4]: expected a number from 0 to 1"]),
    "lantern's residual alone": ("version: 1", "resampler: {kind: lantern}\nversion: 1", [":1: resampler.kind: expected the rule lantern or lantern_pp", "found the rule ratio"]),
    "negative beta": ("kind: exponential, delta: 1.1", "kind: excess, beta: -1", [":7: schedule.beta: expected a number from 0 to 1e6"]),
    "unknown key": ("length: 5", "length: 5, lenght: 5", [":4: draft.lenght: expected one of model, weights, length", "did you mean 'length'?"]),
    "unknown section": ("version: 1", "version: 1\nsamplin: {}", [":2: samplin:", "an unknown key", "did you mean 'sampling'?"]),
    "unknown schedule": ("kind: exponential", "kind: exponental", [":7: schedule.kind: expected one of exponential, linear", "did you mean 'exponential'?"]),
    "no schedule kind": ("kind: exponential, ", "", [":7: schedule.kind: expected one of exponential", "found nothing"]),
    "unknown resampler": ("version: 1", "version: 1\nresampler: {kind: best}", [":2: resampler.kind: expected one of optimal, waterfill, residual, lantern, target"]),
    "unknown backend": ("version: 1", "version: 1\nengine: {backend: tensort}", [":2: engine.backend: expected one of onnxruntime, torch", "did you mean 'tensorrt'?"]),
    "precision of another device": ("version: 1", "version: 1\nengine: {precision: fp16}", [":2: engine: expected one of fp32, int8 for onnxruntime on cpu, found precision fp16"]),
    "TensorRT on a CPU": ("version: 1", "version: 1\nengine: {backend: tensorrt, device: cpu}", [":2: engine: expected the device cuda", "set engine.device: cuda"]),
    "no batch": ("version: 1", "version: 1\nengine: {max_batch: 0}", [":2: engine.max_batch: expected a whole number from 1 to 4096, found 0"]),
    "NaN delta": ("delta: 1.1", "delta: .nan", [":7: schedule.delta: expected a number from 0 to 1e6, found NaN"]),
    "infinite delta": ("delta: 1.1", "delta: .inf", [":7: schedule.delta: expected a number from 0 to 1e6, found Infinity"]),
    "negative delta": ("delta: 1.1", "delta: -0.1", [":7: schedule.delta: expected a number from 0 to 1e6, found -0.1"]),
    "delta a word": ("delta: 1.1", "delta: much", [":7: schedule.delta: expected a number from 0 to 1e6", '"much"']),
    "delta true": ("delta: 1.1", "delta: true", [":7: schedule.delta: expected a number from 0 to 1e6, found true"]),
    "negative nu": ("delta: 1.1", "delta: 1.1, nu: -1", [":7: schedule.nu: expected a number from 0 to 1e6, found -1"]),
    "negative floor": ("delta: 1.1", "delta: 1.1, floor: -1", [":7: schedule.floor: expected a number from 0 to 1e6"]),
    "no delta": (", delta: 1.1", "", [":7: schedule.delta: expected a value, found nothing"]),
    "nu of another schedule": ("kind: exponential, delta: 1.1", "kind: uniform, delta: 1.1, nu: 1", [":7: schedule.nu: expected one of kind, delta, floor"]),
    "too few omegas": ("kind: exponential, delta: 1.1", "kind: custom, values: [1, 1, 1]", [":7: schedule.values: expected 5 values", "found 3"]),
    "NaN omega": ("kind: exponential, delta: 1.1", "kind: custom, values: [1, 1, .nan, 1, 1]", [":7: schedule.values[2]: expected a number from 0 to 1e6"]),
    "omega a word": ("kind: exponential, delta: 1.1", "kind: custom, values: ['{x}']", [':7: schedule.values[0]: expected a number from 0 to 1e6, found "{x}"']),
    "schedule a word": ("{kind: exponential, delta: 1.1}", "none", [':7: schedule: expected a mapping, found "none"; write {kind: none}']),
    "schedule a list": ("{kind: exponential, delta: 1.1}", "[1]", [":7: schedule: expected a mapping, found [1]"]),
    "schedule nothing": ("{kind: exponential, delta: 1.1}", "", [":7: schedule: expected a mapping, found null"]),
    "kind a list": ("kind: exponential", "kind: [1]", [":7: schedule.kind: expected one of exponential", "found [1]"]),
    "kind as a key": ("kind: exponential", "kind: uniform, uniform: 1", [":7: schedule.uniform: expected one of kind, delta, floor"]),
    "no omegas": ("kind: exponential, delta: 1.1", "kind: custom, values: []", [":7: schedule.values: expected at least 1 value, found 0"]),
    "draft length 0": ("length: 5", "length: 0", [":4: draft.length: expected a whole number from 1 to 65536, found 0"]),
    "draft length 2.5": ("length: 5", "length: 2.5", [":4: draft.length: expected a whole number from 1 to 65536, found 2.5"]),
    "length a word": ("length: 5", 'length: "5"', [":4: draft.length: expected a whole number from 1 to 65536", '"5"']),
    "version 2": ("version: 1", "version: 2", [":1: version: expected 1, found 2"]),
    "version true": ("version: 1", "version: true", [":1: version: expected 1, found true"]),
    "version 1.0": ("version: 1", "version: 1.0", [":1: version: expected 1, found 1.0"]),
    "name with a slash": ("name: toy", "name: ../toy", [":2: name: expected lower-case letters", '"../toy"']),
    "no target": ("target: {model: llamagen, weights: w/target.safetensors}\n", "", ["target: expected a value, found nothing"]),
    "target a list": ("{model: llamagen, weights: w/target.safetensors}", "[1]", [":3: target: expected a mapping, found [1]"]),
    "low cfg": ("version: 1", "version: 1\nsampling: {cfg_scale: 0.5}", [":2: sampling.cfg_scale: expected a number from 1 to 1000"]),
    "cold": ("version: 1", "version: 1\nsampling: {temperature: -1}", [":2: sampling.temperature: expected a number from 0 to 1000, found -1"]),
    "negative top_k": ("version: 1", "version: 1\nsampling: {top_k: -1}", [":2: sampling.top_k: expected a whole number from 0 to 1048576"]),
    "zero top_p": ("version: 1", "version: 1\nsampling: {top_p: 0}", [":2: sampling.top_p: expected a number from 1e-6 to 1"]),
    "top_p above 1": ("version: 1", "version: 1\nsampling: {top_p: 1.5}", [":2: sampling.top_p: expected a number from 1e-6 to 1"]),
    "missing weights": ("w/vq.safetensors", "w/no.safetensors", [":5: image.weights: expected a file at", "no.safetensors, found nothing"]),
    "weights a folder": ("w/vq.safetensors", "w", [":5: image.weights: expected a file at", "found a folder"]),
    "absolute path": ("w/vq.safetensors", "/etc/hostname", [":5: image.weights: expected a path relative", "/etc/hostname"]),
    "drive path": ("w/vq.safetensors", r"C:\x.safetensors", [":5: image.weights: expected a path relative"]),
    "home path": ("w/vq.safetensors", "~/x.safetensors", [":5: image.weights: expected a path relative"]),
    "path out": ("w/vq.safetensors", "w/../../x", [":5: image.weights: expected a path inside the spec's folder"]),
    "empty path": ("w/vq.safetensors", "''", [":5: image.weights: expected a file name"]),
    "unknown condition": ("kind: words", "kind: word", [":6: condition.kind: expected one of words, class, t5, tokens", '"word"', "did you mean 'words'?"]),
    "key of another condition": ("kind: words", "kind: class", [":6: condition.vocab: expected one of kind, classes, labels", "an unknown key"]),
    "no classes": (WORDS, "{kind: class, classes: 0}", [":6: condition.classes: expected a whole number from 1 to 1048576, found 0"]),
    "labels out": (WORDS, "{kind: class, labels: /etc/labels}", [":6: condition.labels: expected a path relative"]),
    "encoder without revision": (WORDS, "{kind: t5, encoder: google/flan-t5-xl}", [":6: condition.revision: expected the commit of the encoder, found nothing"]),
    "revision a branch": (WORDS, "{kind: t5, encoder: google/flan-t5-xl, revision: main}", [":6: condition.revision: expected a commit, 40 hexadecimal digits, found main"]),
    "revision alone": (WORDS, "{kind: t5, revision: main, features: f}", [":6: condition.revision: expected no revision without an encoder, found main"]),
    "encoder no id": (WORDS, "{kind: t5, encoder: flan, features: f}", [":6: condition.encoder: expected a hub id, OWNER/NAME, found flan; name a local folder"]),
    "two encoders": (WORDS, f"{{kind: t5, encoder: a/b, revision: {'a' * 40}, folder: t5}}", [":6: condition.folder: expected encoder or folder, found both"]),
    "no features from anywhere": (WORDS, "{kind: t5}", [":6: condition.features: expected features, an encoder with its revision, or a folder, found none"]),
    "encoder's folder out": (WORDS, "{kind: t5, folder: ../t5}", [":6: condition.folder: expected a path inside the spec's folder"]),
    "no layout": (WORDS, "{kind: tokens, tokenizer: t}", [":6: condition.layout: expected a value, found nothing"]),
    "odd size": (WORDS, "{kind: tokens, layout: lumina, tokenizer: t, width: 770, height: 512}", [":6: condition.width: expected pixels, a multiple of 32, found 770"]),
    "no height": (WORDS, "{kind: tokens, layout: lumina, tokenizer: t, width: 768}", [":6: condition.height: expected pixels, a multiple of 32, found nothing"]),
    "size of anole": (WORDS, "{kind: tokens, layout: anole, tokenizer: t, height: 512}", [":6: condition.height: expected no size: anole draws one", "found 512"]),
    "size of janus": (WORDS, "{kind: tokens, layout: janus, tokenizer: t, width: 768}", [":6: condition.width: expected no size", "found 768"]),
    "template without a prompt": (WORDS, "{kind: tokens, layout: janus, tokenizer: t, template: draw}", [":6: condition.template: expected a text with {prompt} in it, once"]),
    "template with another place": (WORDS, "{kind: tokens, layout: janus, tokenizer: t, template: '{width} {prompt}'}", [":6: condition.template: expected no place but {prompt}, found {width}"]),
    "cfg interval below -1": ("version: 1", "version: 1\nsampling: {cfg_interval: -2}", [":2: sampling.cfg_interval: expected a whole number from -1 to 65536, found -2"]),
    "twice": ("name: toy", "name: toy\nname: toy", [":3: name: expected each key once", "first on line 2"]),
    "twice inside": ("length: 5", "length: 5, length: 6", [":4: draft.length: expected each key once"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_mistake_is_one_line(write: Write, case: str) -> None:
    old, new, words = BAD[case]
    path = write(str(old), str(new))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{path}:")
    for word in words:
        assert word in lines[0], lines[0]
    assert caught.value.exit_code == 2


def test_all_mistakes_at_once_in_order(write: Write) -> None:
    path = write("version: 1", "version: 7", "name: toy", "name: toy\nname: toy", "length: 5", "length: 0")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    keys = [line.removeprefix(f"{path}:").split(": ")[:2] for line in str(caught.value).splitlines()]
    assert keys == [["1", "version"], ["3", "name"], ["5", "draft.length"]]
    assert len(caught.value.problems) == 3


def test_links(write: Write, tmp_path: Path) -> None:
    path = write()
    (tmp_path / "inside").symlink_to(tmp_path / "w/vq.safetensors")
    assert load_spec(write("w/vq.safetensors", "inside")).files["image.weights"].name == "vq.safetensors"
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.touch()
    (tmp_path / "escape").symlink_to(outside)
    path = write("w/vq.safetensors", "escape")
    for check in (True, False):
        with pytest.raises(SpecError, match=r":5: image.weights: expected a file inside .*escape, a link to"):
            load_spec(path, check_files=check)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SpecError, match=r":5: image.weights"):
        load_spec(write("w/vq.safetensors", "loop"))


def test_files_need_not_be_there_when_not_asked(write: Write, tmp_path: Path) -> None:
    (tmp_path / "w/vocab.json").unlink()
    loaded = load_spec(write(), check_files=False)
    assert "condition.vocab" not in loaded.files
    assert "target.weights" in loaded.files


def test_length_above_the_image(write: Write) -> None:
    loaded = load_spec(write("length: 5", "length: 300"))
    loaded.check_length(300)
    with pytest.raises(
        UserError, match=r"toy.yaml:4: draft.length: expected at most the image's 256 tokens, found 300"
    ):
        loaded.check_length(256)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").touch()
    with pytest.raises(UserError, match=r"no.yaml: expected a spec file, found no such file; there is: .*other.yaml"):
        load_spec(tmp_path / "no.yaml")
    with pytest.raises(UserError, match="found a folder"):
        load_spec(tmp_path)


RAW = {
    b"": "expected a mapping with version, name, target, ..., found an empty file",
    b"# only a comment\n": "found an empty file",
    b"\xff\xfe": ":1: expected UTF-8 text, found byte 0xff",
    b"a: 1\nb: \xe9\n": ":2: expected UTF-8 text, found byte 0xe9",
    b"a: 1\nb: \x00\n": ":2: expected printable text",
    b"- 1\n": ":1: expected a mapping with version",
    b"word\n": ":1: expected a mapping with version",
    b"a: [1\nb: 2\n": ":2: expected valid YAML",
    b"a: {b: 1\n": "expected valid YAML",
    b"a:\n\t- b\n": ":2: expected valid YAML",
    b"a: 1\n---\nb: 2\n": ":2: expected valid YAML, found but found another document",
    b"a: &x [1]\nb: *x\n": ":1: expected no anchors or aliases",
    b"a: *x\n": ":1: expected no anchors or aliases",
    b"<<: {a: 1}\n": ": <<: expected one of version",
    b"a: !!python/object/apply:os.system [ls]\n": ":1: expected no tags",
    b"a: !x 1\n": ":1: expected no tags",
    b"a: !!int word\n": ":1: expected a value of type int",
    b"? [1]\n: 2\n": ":1: expected a key that is a word",
    b"[" * 5000: "levels of nesting",
    b"a: " * 5000: "expected valid YAML",
    b"#" * (2 << 20): "expected at most 1024 KiB of YAML",
    b"a: " + b"9" * 5000: ":1: expected a value of type int",
}


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:20]))
def test_text_that_is_no_spec(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "toy.yaml"
    path.write_bytes(raw)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert RAW[raw] in str(caught.value)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines())


def test_alias_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    levels = [f"a{i}: &a{i} [{', '.join(['*a' + str(i - 1)] * 9)}]" for i in range(1, 30)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["a0: &a0 [lol]", *levels]))
    with pytest.raises(SpecError, match=r":1: expected no anchors or aliases"):
        load_spec(path)


def test_block_style_lines(write: Write) -> None:
    text = GOOD.replace(
        "draft: {model: eagle, weights: w/draft.safetensors, length: 5}",
        "draft:\n  model: eagle\n  weights: w/draft.safetensors\n  length: -5",
    )
    with pytest.raises(SpecError, match=r":7: draft.length: expected a whole number from 1 to 65536, found -5"):
        load_spec(write(text))

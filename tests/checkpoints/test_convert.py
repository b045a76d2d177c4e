"""Conversion of published checkpoints: strict, streaming, atomic; every wrong input is one line that names it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from coolsd_rt.checkpoints import hub
from coolsd_rt.checkpoints.convert import FORMATS, convert, named_options
from coolsd_rt.checkpoints.format import ConvertOptions, Given
from coolsd_rt.checkpoints.formats.llama import _for_each_head
from coolsd_rt.checkpoints.formats.plain import PLAIN, convert_plain
from coolsd_rt.checkpoints.hub import locate
from coolsd_rt.checkpoints.load import load_target, load_tokenizer
from coolsd_rt.checkpoints.writer import write_safetensors
from coolsd_rt.cli.convert import command
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.models.families.llamagen import CLASS
from coolsd_rt.models.header import read_config
from coolsd_rt.models.inception import FAMILY as INCEPTION
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.store.weights import TensorInfo, check_safetensors
from tests.models.test_reference_llamagen import HEADS, checkpoint

OPTIONS = ConvertOptions(size=256, heads=HEADS)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    torch.save({"model": checkpoint("c2i")}, tmp_path / "c2i.pt")
    return tmp_path / "c2i.pt"


def refused(source: Path, *words: str, kind: type[CoolsdError] = UserError, **more: Any) -> None:
    """One line that has all words; nothing is left behind."""
    place = source.parent / "place"
    place.mkdir()
    with pytest.raises(kind) as caught:
        convert(source, place / "ours.safetensors", options=more.pop("options", OPTIONS), **more)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(place.iterdir()) == []


def test_what_is_written(published: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    done = convert(published, tmp_path / "ours.safetensors", options=OPTIONS, on_tensor=lambda *at: seen.append(at))
    assert read_config(done.path) == {
        "family": "llamagen-c2i",
        "vocab": 40,
        "dim": 48,
        "layers": 2,
        "heads": 3,
        "ffn": 64,
        "prefix": 1,
        "norm_eps": 1e-5,
        "rope_base": 1e4,
        "grid": 16,
        "prefix_rope": "zero",
        "classes": 10,
    }
    written, theirs = load_file(str(done.path)), checkpoint("c2i")
    assert set(written) == set(theirs) - {"freqs_cis"}
    assert all(torch.equal(written[k], theirs[k]) for k in written)
    assert seen[-1] == (done.tensors, done.tensors)
    assert done.bytes == done.path.stat().st_size
    assert json.loads(json.dumps(done.as_dict()))["dropped"] == 1
    half = convert(published, tmp_path / "half.safetensors", options=OPTIONS, dtype="float16")
    assert {t.dtype for t in check_safetensors(half.path).tensors.values()} == {"F16"}
    assert torch.equal(load_file(str(half.path))["norm.weight"], theirs["norm.weight"].half())


def test_published_sizes_need_no_heads(tmp_path: Path) -> None:
    """Heads by width and depth."""
    given = Given(Path("x"), {}, {})
    assert given.heads(CLASS, dim=768, layers=12) == 12
    assert given.heads(CLASS, dim=3200, layers=24) == 32
    with pytest.raises(UserError, match="give --heads N"):
        given.heads(CLASS, dim=768, layers=13)


WRONG: list[tuple[str, Change, list[str]]] = [
    ("missing", lambda t: t.pop("norm.weight"), ["norm.weight", "expected a tensor", "found none"]),
    ("a layer's", lambda t: t.pop("layers.1.attention.wo.weight"), ["layers.1.attention.wo.weight", "found none"]),
    ("surplus", lambda t: t.update(extra=torch.zeros(2)), ["extra", "no such tensor", "[2]"]),
    ("shape", lambda t: t.update({"output.weight": torch.zeros(39, 48)}), ["output.weight", "[40, 48]", "[39, 48]"]),
    ("axes", lambda t: t.update({"tok_embeddings.weight": torch.zeros(40)}), ["tok_embeddings.weight", "2 axes"]),
    ("type", lambda t: t.update({"norm.weight": torch.zeros(48, dtype=torch.int64)}), ["norm.weight", "int64"]),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_tensor_is_named(tmp_path: Path, change: Change, words: list[str]) -> None:
    state = checkpoint("c2i")
    change(state)
    torch.save({"model": state}, tmp_path / "odd.pt")
    refused(tmp_path / "odd.pt", "odd.pt", *words)


def test_sizes_and_families(published: Path, tmp_path: Path) -> None:
    refused(published, "--size", "256, 384, 512", "found 300", options=ConvertOptions(300, HEADS))
    (tmp_path / "place").rmdir()
    refused(published, "--size", "found nothing", options=ConvertOptions(None, HEADS))
    (tmp_path / "place").rmdir()
    refused(published, "heads", "give --heads N", "dim 48", options=ConvertOptions(256))
    (tmp_path / "place").rmdir()
    refused(published, "c2i.pt", "cls_embedding.uncond_embedding", "found one of llamagen-c2i", family="llamagen-t2i")
    (tmp_path / "place").rmdir()
    refused(published, "--family", "one of llamagen-c2i", "found gpt2", family="gpt2")
    with pytest.raises(UserError, match="--prefix"):
        named_options(None, None, 0)


def test_not_a_checkpoint(published: Path, tmp_path: Path) -> None:
    data = published.read_bytes()
    cases: list[tuple[str, bytes, str]] = [
        ("half.pt", data[: len(data) // 2], "truncated"), ("empty.pt", b"", "empty"), ("text.pt", b"hello" * 9, "else"),
        ("page.pt", b"<html>" * 9, "web page"),
    ]  # fmt: skip
    for name, content, word in cases:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name, word)
        (tmp_path / "place").rmdir()
    torch.save({"model": checkpoint("c2i"), "hook": print}, tmp_path / "code.pt")
    refused(tmp_path / "code.pt", "code.pt", "holds more than tensors")
    (tmp_path / "place").rmdir()
    torch.save([1, 2], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "weights by name", "list")
    (tmp_path / "place").rmdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", "tensors a", "llamagen-c2i")
    (tmp_path / "place").rmdir()
    refused(tmp_path / "absent.pt", "absent.pt", "found nothing")


def shards(folder: Path) -> Path:
    folder.mkdir()
    state = checkpoint("c2i")
    names = sorted(state)
    table: dict[str, str] = {}
    for i, part in enumerate((names[:7], names[7:])):
        file = f"model-{i}.safetensors"
        save_file({n: state[n] for n in part}, str(folder / file))
        table |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder


def test_shards(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    done = convert(folder, tmp_path / "ours.safetensors", options=ConvertOptions(size=256))
    theirs = checkpoint("c2i")
    assert all(torch.equal(v, theirs[k]) for k, v in load_target(done.path).state_dict().items())


SHARDS: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("truncated", lambda f: (f / "model-1.safetensors").write_bytes((f / "model-1.safetensors").read_bytes()[:-9]),
     ["model-1.safetensors", "truncated"]),
    ("absent", lambda f: (f / "model-0.safetensors").unlink(), ["model-0.safetensors", "no such file"]),
    ("twice", lambda f: save_file({"norm.weight": torch.zeros(48)}, str(f / "model-0.safetensors")),
     ["norm.weight", "every tensor once"]),
    ("less", lambda f: save_file({"a": torch.zeros(1)}, str(f / "model-0.safetensors")), ["model-0.safetensors"]),
    ("index", lambda f: (f / "model.safetensors.index.json").write_text("{"), ["index.json", "not JSON"]),
    ("map", lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'), ["weight_map"]),
    ("config", lambda f: (f / "config.json").write_text("[]"), ["config.json", "mapping"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in SHARDS], ids=[case[0] for case in SHARDS])
def test_a_broken_folder_is_named(tmp_path: Path, change: Callable[[Path], object], words: list[str]) -> None:
    folder = shards(tmp_path / "shards")
    change(folder)
    refused(folder, *words)


def test_places(published: Path, tmp_path: Path) -> None:
    for to, word in ((tmp_path, "a folder"), (published, "the checkpoint itself"), (tmp_path / "no/x", "no folder")):
        with pytest.raises(UserError, match=word):
            convert(published, to, options=OPTIONS)
    assert load_target(convert(published, tmp_path / "x", options=OPTIONS).path)


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def read(name: str) -> Tensor:
        if name == "b":
            raise RuntimeError("lost")
        return torch.zeros(2)

    info, place = TensorInfo("F32", (2,)), tmp_path / "ours.safetensors"
    place.write_bytes(b"what was there")
    with pytest.raises(RuntimeError, match="lost"):
        write_safetensors(place, [("a", info), ("b", info)], {}, read)
    with pytest.raises(CoolsdError, match="a: expected F16"):
        write_safetensors(place, [("a", TensorInfo("F16", (2,)))], {}, read)
    assert place.read_bytes() == b"what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["ours.safetensors"]


def test_the_format_is_safetensors(tmp_path: Path) -> None:
    values = {
        "b": torch.randn(3, 2).half(),
        "a": torch.randn(5),
        "c": torch.randn(1).bfloat16(),
        "d": torch.zeros(0, 4),
    }
    infos = [
        (k, TensorInfo({2: "F16", 4: "F32"}[v.itemsize] if k != "c" else "BF16", tuple(v.shape)))
        for k, v in values.items()
    ]
    size = write_safetensors(tmp_path / "x", infos, {"config": "é"}, values.__getitem__)
    assert size == (tmp_path / "x").stat().st_size
    read = load_file(str(tmp_path / "x"))
    assert all(torch.equal(read[k], v) and read[k].dtype == v.dtype for k, v in values.items())
    assert check_safetensors(tmp_path / "x").metadata == {"config": "é"}


def test_llamagens_tokenizer(tmp_path: Path) -> None:
    """The names are ours; an unused counter beside them is dropped. Its groups of 32 need wide layers."""
    for cfg in (VQConfig(16, 4, 32, (1, 2), 32, 1), VQConfig(16, 4, 32, (1, 2, 2), 64, 2)):
        made = VQTokenizer(cfg)
        torch.save({"model": made.state_dict() | {"quantize.codebook_used": torch.zeros(9)}}, tmp_path / "vq.pt")
        done = convert(tmp_path / "vq.pt", tmp_path / "vq.safetensors", overwrite=True)
        loaded = load_tokenizer(done.path)
        assert (done.family, done.dropped, loaded.cfg) == ("vq", 1, cfg)
        assert all(torch.equal(v, made.state_dict()[k]) for k, v in loaded.state_dict().items())
    torch.save({k: v for k, v in made.state_dict().items() if not k.startswith("decoder")}, tmp_path / "vq.pt")
    refused(tmp_path / "vq.pt", "decoder.conv_in.weight", "a decoder")


def test_norms_of_ranks_become_norms_of_heads() -> None:
    ranks = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert _for_each_head(4)(ranks).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert _for_each_head(2)(ranks[0]).tolist() == [[1, 2], [1, 2]]
    assert _for_each_head(2)(ranks).tolist() == ranks.tolist()


def test_where_a_checkpoint_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    assert locate(str(tmp_path)) == tmp_path
    for source, word in (("absent.pt", "no such file"), ("org/name", "no commit"), ("org/name@main", "found main")):
        with pytest.raises(UserError, match=word):
            locate(source)
    asked: list[tuple[Any, ...]] = []

    def download(*args: Any, **more: Any) -> str:
        if more.pop("local_files_only", False):  # the cache is looked into first
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        asked.append((args, more))
        return str(tmp_path)

    monkeypatch.setattr(hub, "no_answer", lambda: "")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert locate(f"org/name@{COMMIT}:c2i.pt") == tmp_path
    assert asked == [(("org/name", "c2i.pt"), {"revision": COMMIT})]

    patterns: list[Any] = []

    def snapshot(*args: Any, **more: Any) -> str:
        patterns.append(more["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert locate(f"org/name@{COMMIT}") == tmp_path
    assert ["*.safetensors" in p for p in patterns] == [True, False]  # there were none
    (tmp_path / "model.safetensors").touch()
    patterns.clear()
    locate(f"org/name@{COMMIT}")
    assert len(patterns) == 1

    def lost(*args: Any, **more: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lost)
    with pytest.raises(CoolsdError) as caught:
        locate(f"org/name@{COMMIT}")
    assert "\n" not in str(caught.value)
    assert "--mirror DIR" in str(caught.value)


def test_the_verb(published: Path, tmp_path: Path) -> None:
    arguments = [str(published), "--to", str(tmp_path / "x"), "--size", "256", "--heads", "3"]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config"]["grid"] == 16
    again = CliRunner().invoke(command, arguments)
    assert isinstance(again.exception, UserError)
    assert "--overwrite" in str(again.exception)
    shown = CliRunner().invoke(command, [*arguments, "--overwrite"])
    assert "llamagen-c2i" in shown.stdout
    listed = re.search(r"Families: ([^.]*)\.", " ".join(str(command.help).split()))
    assert listed is not None
    assert sorted(listed[1].split(", ")) == sorted([*FORMATS, INCEPTION, *PLAIN])  # those that no spec names


def test_a_pickle_of_before_torch_1_6_is_read_too(published: Path, tmp_path: Path) -> None:
    """It cannot be mapped; FID's Inception is published in it."""
    old = tmp_path / "old.pt"
    torch.save({"model": checkpoint("c2i")}, old, _use_new_zipfile_serialization=False)
    new, again = (convert(path, tmp_path / f"{path.stem}.safetensors", options=OPTIONS) for path in (published, old))
    assert new.path.read_bytes() == again.path.read_bytes()
    old.write_bytes(old.read_bytes()[:-100])
    refused(old, "a truncated, damaged or other file")


def test_a_config_of_something_else_beside_a_file_is_not_its_own(published: Path, tmp_path: Path) -> None:
    plain = convert(published, tmp_path / "plain.safetensors", options=OPTIONS).config
    (tmp_path / "config.json").write_text('{"num_attention_heads": 6, "rms_norm_eps": 0.5, "rope_base": 5.0}')
    assert convert(published, tmp_path / "beside.safetensors", options=OPTIONS).config == plain
    own = published.rename(tmp_path / "pytorch_model.bin")  # as transformers names it: this config is its own
    assert convert(own, tmp_path / "own.safetensors", options=ConvertOptions(size=256)).config["heads"] == 6


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_base"])
@pytest.mark.parametrize("value", ["null", '"abc"', "[1]", "0", "true"])
def test_a_config_with_something_else_than_a_number(published: Path, key: str, value: str) -> None:
    (published.parent / "config.json").write_text(f'{{"{key}": {value}}}')
    refused(published.rename(published.with_name("model.bin").with_name("pytorch_model.bin")), f"config.json: {key}")


def test_heads_that_contradict_the_published_model_are_asked_for(tmp_path: Path) -> None:
    sizes = {"dim": 1024, "layers": 24}
    given = Given(tmp_path, {}, {"num_attention_heads": 32})
    with pytest.raises(UserError, match=r"num_attention_heads: expected 16, .*found 32; .*give --heads N"):
        given.heads(CLASS, **sizes)
    assert Given(tmp_path, {}, {"num_attention_heads": 32}, ConvertOptions(heads=32)).heads(CLASS, **sizes) == 32
    assert Given(tmp_path, {}, {}).heads(CLASS, **sizes) == 16


@pytest.mark.parametrize("family", sorted(PLAIN))
def test_networks_of_others_are_copied_as_they_are(tmp_path: Path, family: str) -> None:
    state = {PLAIN[family]: torch.randn(2, 3), "b": torch.ones(4).half(), "position_ids": torch.arange(4)}
    torch.save({"state_dict": state}, tmp_path / "theirs.pt")
    shown = CliRunner().invoke(
        command, [str(tmp_path / "theirs.pt"), "--family", family, "--to", str(tmp_path / "ours.safetensors"), "--json"]
    )
    assert json.loads(shown.stdout)["dropped"] == 1, shown.output
    ours = load_file(tmp_path / "ours.safetensors")
    assert set(ours) == {PLAIN[family], "b"}
    assert all(torch.equal(ours[name], state[name]) for name in ours)
    other = next(name for name in PLAIN if name != family)
    with pytest.raises(UserError, match=f"a checkpoint of {other}"):
        convert_plain(tmp_path / "theirs.pt", tmp_path / "x.safetensors", other)


def test_what_a_killed_conversion_left_goes_once_it_is_old(published: Path, tmp_path: Path) -> None:
    old, young = (tmp_path / f".ours.safetensors.{name}.tmp" for name in ("aaaa", "bbbb"))
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    convert(published, tmp_path / "ours.safetensors", options=OPTIONS)
    assert not old.exists()
    assert young.exists()  # another process may be at it


def test_a_device_is_no_place_for_a_file(published: Path) -> None:
    with pytest.raises(UserError, match="expected a file to write, found a device"):
        convert(published, Path(os.devnull), options=OPTIONS)

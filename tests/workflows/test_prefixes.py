"""Prefixes of different lengths, features and forced tokens, from a job to the tokens, on a fake engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.backends import Description
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law import Law
from coolsd_rt.models.layout import Layout, is_layout
from coolsd_rt.prompts import Encoded
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.spec import load_spec
from coolsd_rt.store import open_engine
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.parity.distance import GraphParity
from coolsd_rt.workflows.parity.graphs import compare_graphs
from coolsd_rt.workflows.parity.images import ImageParity, compare_images
from tests.workflows.fakes import DIMS, SIDE, VOCABULARY, FakeEngine, FakeSession

DRAFTED = Settings(Law((1.5, 1.2, 1.0)), Sampling(cfg_scale=2.0))
PROMPTS = ["ab", "abcde", "c"]
FORCED = tuple(3 if n % 5 == 4 else 7 if n == DIMS.tokens - 1 else -1 for n in range(DIMS.tokens))


@dataclass
class Letters:
    """A row of one id a letter, at the right end of W positions; the unconditional row is another number of them."""

    prefix: int = 6
    features_dim: int = 0
    padded: bool = True
    encoded: list[str] = field(default_factory=list)
    released: int = 0

    def encode(self, prompt: str) -> Encoded:
        self.encoded.append(prompt)
        ids = tuple(ord(letter) - ord("a") + 3 for letter in prompt)
        if not self.features_dim:
            return Encoded(ids, start=self.prefix - len(ids))
        rows = np.asarray([[i] * self.features_dim for i in ids], np.float32)
        return Encoded(start=self.prefix - len(ids), features=rows)

    def unconditional(self, encoded: Encoded) -> Encoded:
        return replace(self).encode("zz")

    def samples(self) -> list[str]:
        return ["a"]

    def release(self) -> None:
        self.released += 1


class Padded(FakeEngine):
    """What stands before a row's start is not in its state; its outputs there are NaN, as they may be anything.

    ignores: forgets the starts, as a graph without that input would.
    """

    def __init__(self, width: int = 6, error: float = 0.0, ignores: bool = False, features: int = 0) -> None:
        super().__init__(error, dims=replace(DIMS, prefix=width, padded=1, condition_dim=features))
        self.ignores = ignores

    def encode_condition(self, condition: Any) -> Any:
        condition = np.asarray(condition)
        return super().encode_condition(condition if condition.ndim == 2 else condition[..., 0].astype(np.int64))

    def open(self, prefix: Any, capacity: int, start: Any = None) -> FakeSession:
        self.opened.append(len(prefix))
        return PaddedSession(self, np.asarray(prefix), capacity, np.zeros(len(prefix)) if self.ignores else start)


class PaddedSession(FakeSession):
    """A draft's row at the start stands for the token after it: its first token is one further on."""

    def __init__(self, engine: FakeEngine, prefix: Any, capacity: int, start: Any) -> None:
        super().__init__(engine, prefix, capacity)
        self.start, self.whole = np.asarray(start), prefix

    def _step(self, kind: str, ids: Any, pos: Any) -> Any:
        first = self.start + (kind == "draft")
        self.given = np.where((np.arange(self.whole.shape[1]) < first[:, None])[..., None], 0.0, self.whole)
        state = super()._step(kind, ids, pos)
        at = np.asarray(pos)[:, None] + np.arange(ids.shape[1])
        return np.where((at < first[:, None])[..., None], np.nan, state)


def codes(engine: FakeEngine, conditioner: Letters, settings: Settings = DRAFTED) -> list[list[int]]:
    jobs = drawing.plan(PROMPTS, 2, 5, conditioner)
    found: list[list[int]] = drawing.draw(engine, jobs, conditioner, settings).codes.tolist()
    return found


@pytest.mark.parametrize("features", [0, 3])
def test_padding_on_the_left_changes_no_token(features: int) -> None:
    narrow, wide = (codes(Padded(w, features=features), Letters(w, features)) for w in (5, 9))
    assert narrow == wide
    assert len(set(map(tuple, narrow))) == 6


def test_ids_and_features_of_the_same_numbers_draw_the_same() -> None:
    assert codes(Padded(), Letters()) == codes(Padded(features=3), Letters(features_dim=3))


def test_a_start_that_is_forgotten_would_show() -> None:
    assert codes(Padded(5, ignores=True), Letters(5)) != codes(Padded(9, ignores=True), Letters(9))


def test_every_row_has_its_own_start() -> None:
    conditioner, seen = Letters(), []

    class Watched(Padded):
        def open(self, prefix: Any, capacity: int, start: Any = None) -> FakeSession:
            seen.append(np.asarray(start).tolist())
            return super().open(prefix, capacity, start)

    drawing.open_session(Watched(), drawing.plan(PROMPTS, 1, 0, conditioner), conditioner, DRAFTED)
    assert seen == [[4, 1, 5, 4, 4, 4]]


def test_a_prompt_is_encoded_once_however_many_images_it_has() -> None:
    conditioner = Letters()
    jobs = drawing.plan(["ab", "c", "ab"], 3, 0, conditioner)
    assert len(jobs) == 9
    assert conditioner.encoded == ["ab", "c"]
    assert conditioner.released == 1
    drawing.spread_jobs(["ab", "c"], 7, 0, conditioner)
    assert conditioner.encoded == ["ab", "c"] * 2


def test_a_text_encoder_is_let_go_of_even_if_a_prompt_is_refused() -> None:
    class Refusing(Letters):
        def encode(self, prompt: str) -> Encoded:
            raise UserError("prompt")

    conditioner = Refusing()
    with pytest.raises(UserError):
        drawing.plan(["ab"], 1, 0, conditioner)
    assert conditioner.released == 1


def test_a_prefix_of_another_kind_than_the_engines_is_refused() -> None:
    jobs = drawing.plan(["red apple"], 1, 0, VOCABULARY)
    with pytest.raises(CoolsdError, match="prefix positions: expected 6, found 4"):
        drawing.draw(Padded(), jobs, VOCABULARY, DRAFTED)


@pytest.mark.parametrize("law", [DRAFTED.law, Law(())], ids=["drafts", "plain"])
def test_forced_tokens_reach_the_image(law: Law) -> None:
    jobs = drawing.plan(["red apple", "yellow star"], 3, 0, VOCABULARY)
    free, forced = (
        drawing.draw(FakeEngine(), jobs, VOCABULARY, Settings(law, DRAFTED.sampling, forced=f)).codes
        for f in (None, FORCED)
    )
    where = np.asarray(FORCED) >= 0
    assert (forced[:, where] == np.asarray(FORCED)[where]).all()
    assert (free[:, :4] == forced[:, :4]).all()  # nothing was forced yet, and every draw has its own numbers
    assert (free[:, where] != forced[:, where]).any()


def test_a_specs_interval_and_an_engines_forced_tokens_become_settings(engine: Path) -> None:
    spec = opening.spec_of(open_engine(engine))
    spec = spec.model_copy(update={"sampling": spec.sampling.model_copy(update={"cfg_interval": 3})})
    for plain in (False, True):
        settings = drawing.settings_of(spec, forced=FORCED, plain=plain)
        assert settings.forced == FORCED
        assert settings.sampling.scales(16).tolist() == [2.0] * 5 + [1.0] * 11


def with_contract(engine: Path, **facts: Any) -> None:
    open_engine(engine).with_manifest(contract={**Description(DIMS, 3, SIDE).as_dict(), **facts})


def test_generate_takes_forced_tokens_from_the_manifest(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def decode_images(self: FakeEngine, codes: Any) -> Any:
        seen.append(codes)
        return np.zeros((len(codes), 8, 8, 3), np.uint8)

    monkeypatch.setattr(FakeEngine, "decode_images", decode_images)
    with_contract(engine, forced=list(FORCED))
    generate(engine, GenerateConfig(["red apple"], tmp_path / "out"))
    where = np.asarray(FORCED) >= 0
    assert (seen[0][:, where] == np.asarray(FORCED)[where]).all()
    with_contract(engine)
    generate(engine, GenerateConfig(["red apple"], tmp_path / "free"))
    assert (seen[1][:, where] != np.asarray(FORCED)[where]).any()


@pytest.mark.parametrize(
    ("forced", "message"),
    [
        ([3], r"contract.forced: expected 16 ids, one a token, found 1"),
        ([], r"contract.forced: expected 16 ids, one a token, found 0"),
        ([-1] * 15 + [99], r"contract.forced: expected ids from -1 \(free\) to 23, found 99"),
        ([-1] * 15 + [-2], r"contract.forced\[15\]: expected at least -1, found -2"),
        (["a"] * 16, r"contract.forced\[0\]: expected a whole number, found \"a\""),
        ([True] * 16, r"contract.forced\[0\]: expected a whole number, found true"),
        ([1.0] * 16, r"contract.forced\[0\]: expected a whole number, found 1.0"),
        ({"0": 1}, r"contract.forced: expected a list"),
        ([3] * 16, r"contract.forced: expected one id at each row's end"),
        ([-1, 3, -1, -1] * 4, r"contract.forced: expected one id at each row's end"),
        ([*FORCED[:4], 5, *FORCED[5:]], r"contract.forced: expected one id at each row's end"),
    ],
)
def test_a_manifests_forced_tokens_are_those_of_a_layout(engine: Path, forced: Any, message: str) -> None:
    with_contract(engine, forced=forced)
    with pytest.raises(CoolsdError, match=rf"{message}.*; build it again"):
        opening.description_of(open_engine(engine))


@pytest.mark.parametrize(("line_end", "end"), [(9, None), (None, 9), (9, 10), (None, None)])
def test_every_layouts_table_is_a_layout(line_end: int | None, end: int | None) -> None:
    for rows, columns in ((1, 1), (1, 5), (2, 3), (24, 24)):
        table = Layout(9, rows, columns, line_end, end).forced.tolist()
        assert is_layout(table) == (line_end is not None or end is not None)


@pytest.mark.parametrize("facts", [{}, {"forced": None}])
def test_no_forced_tokens_are_none(engine: Path, facts: Any) -> None:
    with_contract(engine, **facts)
    assert opening.description_of(open_engine(engine)).forced is None


@pytest.mark.parametrize("more", ["features", "text_encoder"])
def test_features_are_refused_by_an_engine_of_words(engine: Path, tmp_path: Path, more: str) -> None:
    request = replace(GenerateConfig(["red apple"], tmp_path / "out"), **{more: tmp_path})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="found a target that reads words; leave them out"):
        generate(engine, request)


def jobs_of(conditioner: Any) -> list[Job]:
    return drawing.plan(PROMPTS, 1, 0, conditioner)


def graphs(tested: FakeEngine, settings: Settings) -> GraphParity:
    letters = Letters()
    jobs = jobs_of(letters)
    drawn = drawing.draw(Padded(), jobs, letters, settings).codes
    return compare_graphs(tested, Padded(), jobs, letters, settings, drawn)


def test_parity_does_not_look_before_a_rows_start() -> None:
    """The fake's outputs there are NaN, which would be an infinite error."""
    found = graphs(Padded(), DRAFTED)
    assert found.target.values > 0
    for name, figures in found.as_dict().items():
        assert figures["max_error"] == 0, name


def test_parity_sees_a_graph_that_ignores_the_starts() -> None:
    assert graphs(Padded(ignores=True), DRAFTED).target.largest > 1e-3


def test_parity_compares_distributions_only_where_a_token_is_free() -> None:
    some, none = (replace(DRAFTED, forced=f) for f in (FORCED, (5,) * DIMS.tokens))
    noisy = Padded(error=1e-2)
    assert graphs(noisy, some).p.as_dict()["mean_tv"] > 0
    whole = graphs(noisy, none)
    assert whole.target.largest > 1e-3
    assert whole.p.as_dict() == {"mean_tv": 0.0, "max_tv": 0.0}


@pytest.mark.parametrize("forced", [None, FORCED], ids=["free", "forced"])
def test_images_of_ragged_prompts_are_compared_and_explained(forced: tuple[int, ...] | None) -> None:
    letters, settings = Letters(), replace(DRAFTED, forced=forced)
    jobs = drawing.plan(PROMPTS, 6, 0, letters)
    same, near = ImageParity(), ImageParity()
    compare_images(Padded(), Padded(), jobs, letters, settings, same)
    assert same.identical == same.images == 18
    compare_images(Padded(error=0.05), Padded(), jobs, letters, settings, near)
    assert near.identical < 18
    assert near.unexplained == 0
    if forced:
        assert (near.codes[0][:, 4] == 3).all()
        assert not {d.token for d in near.differences} & {n for n, i in enumerate(forced) if i >= 0}


CLASS = "condition: {kind: class, classes: 24}"


def test_default_prompts_are_beside_the_conditions_file_else_the_conditioners_own(engine: Path, tmp_path: Path) -> None:
    loaded = load_spec(tmp_path / "fake.yaml")
    assert opening.default_prompts(loaded, VOCABULARY) == VOCABULARY.samples()
    (tmp_path / "prompts.txt").write_text("red star\n\n yellow apple \n")
    assert opening.default_prompts(loaded, VOCABULARY) == ["red star", "yellow apple"]
    text = (tmp_path / "fake.yaml").read_text().replace("condition: {kind: words, vocab: vocab.json}", CLASS)
    (tmp_path / "class.yaml").write_text(text)
    assert opening.default_prompts(load_spec(tmp_path / "class.yaml"), VOCABULARY) == ["red star", "yellow apple"]
    (tmp_path / "prompts.txt").unlink()
    assert opening.default_prompts(load_spec(tmp_path / "class.yaml"), Letters()) == ["a"]


def test_the_kind_in_the_manifest_reads_the_prompts(engine: Path) -> None:
    folder = open_engine(engine)
    found = opening.load_conditioner(folder.verified())
    assert found.encode("red apple").ids == VOCABULARY.encode("red apple").ids
    spec = json.loads(json.dumps(folder.manifest.spec))
    spec["condition"] = {"kind": "class", "classes": 24, "labels": None}
    contract = Description(replace(DIMS, prefix=1), 3, SIDE).as_dict()
    other = opening.load_conditioner(folder.with_manifest(spec=spec, contract=contract).verified())
    assert other.encode("7").ids == (7,)

"""Texts: drawn as the loop draws them, measured up to their own length, and trainings that resume at the same bytes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.checkpoints.load import load_draft, load_target
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.families.llama import LlamaConfig
from coolsd_rt.prompts import Rows
from coolsd_rt.runtime.round import generate
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.self_decoding import Extent
from coolsd_rt.runtime.state import capacity
from coolsd_rt.spec import load_spec
from coolsd_rt.train.acceptance import Tally
from coolsd_rt.train.config import TrainCallbacks, TrainConfig
from coolsd_rt.train.draw import TargetSession
from coolsd_rt.train.draw_texts import draw_texts, text_lengths
from coolsd_rt.train.networks import drafting
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.run import train_draft
from coolsd_rt.train.students import Example
from coolsd_rt.train.text_objective import measure_texts
from coolsd_rt.train.text_students import TextHeadStudent
from tests.workflows.family_pipelines import write_pipeline

CFG = LlamaConfig(vocab=12, dim=32, layers=2, heads=4, ffn=48, prefix=6, length=9, kv_heads=2, tied=True)
TEXTS = ("red apple", "blue star", "star", "apple", "red", "blue")


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_texts_are_those_of_the_loop(scale: float) -> None:
    torch.manual_seed(0)
    target, sampling = Decoder(CFG).eval().requires_grad_(False), Sampling(cfg_scale=scale, temperature=30.0)
    text = np.random.default_rng(0).integers(1, 12, (16 if scale > 1 else 8, 6))
    start = np.resize(np.array([3, 1, 4, 2]), len(text))
    rows, ends = Rows(text, start), (3, 7)
    wanted = generate(
        TargetSession(target, rows), Law(()), sampling, range(8), loop="host", extent=Extent(ends, (8,) * 8, 1)
    )
    found = draw_texts(target, rows, sampling, range(8), ends, 8)
    lengths = text_lengths(found)
    assert wanted.lengths is not None
    assert lengths.tolist() == wanted.lengths.tolist()
    assert len(set(lengths.tolist())) > 1
    for mine, theirs, n in zip(found, wanted.codes, lengths.tolist(), strict=True):
        assert mine[:n].tolist() == theirs[:n].tolist()


def test_the_tally_of_texts_is_the_enumeration() -> None:
    """Two tokens, of which 1 ends a text; at most four. P(end) = 1/4, Q(end) = 1/2, two drafts."""
    p, q, most = (0.75, 0.25), (0.5, 0.5), 4
    keep = [min(1.0, b / a) for a, b in zip(p, q, strict=True)]  # probability that x's token is kept, given x
    texts = [x for n in range(1, most + 1) for x in itertools.product((0, 1), repeat=n) if 1 not in x[:-1]]
    texts = [x for x in texts if x[-1] == 1 or len(x) == most]
    assert sum(np.prod([p[t] for t in x]) for x in texts) == pytest.approx(1)
    tokens = rounds = 0.0

    def walk(x: tuple[int, ...], at: int) -> float:
        """Expected rounds from token `at` of a text on."""
        if at >= len(x):
            return 0.0
        alive, total = 1.0, 1.0
        for i in range(2):
            n = at + i
            if n >= len(x):
                return total  # the end was a draft that was kept
            if n > most - 2:
                break
            total += alive * (1 - keep[x[n]]) * walk(x, n + 1)
            alive *= keep[x[n]]
        else:
            i = 2
        return total + alive * walk(x, at + i + 1)

    tally = Tally((1.0, 1.0))
    for x in texts:
        times = round(float(np.prod([p[t] for t in x])) * 4**most)
        tokens += times * (len(x) - 1)
        rounds += times * walk(x, 1)
        path = np.ones(most)
        path[: len(x)] = [keep[t] for t in x]
        path[len(x) :] = 0.3  # behind the end anything may stand
        paths = np.broadcast_to(path, (2, 2, times, most))
        rates = np.full_like(paths, 0.75)
        lengths = np.full(times, len(x))
        tally.add(rates, paths, lengths, np.minimum(lengths - 1, most - 2))
    found = tally.result()
    assert found.accept_length == pytest.approx(tokens / rounds)
    assert found.relaxed == pytest.approx(found.accept_length)  # omega 1, and the ends that drafts are count once


def _request(folder: Path, out: Path, **more: object) -> TrainConfig:
    loaded = load_spec(write_pipeline(folder, "llama"), check_files=True)
    usual: dict[str, object] = {
        "data": "self:6", "prompts": TEXTS, "steps": 6, "batch": 2, "every": 3, "held_out": 3, "device": "cpu",
        "tokens": 8,
    }  # fmt: skip
    return TrainConfig(loaded, out=out, **{**usual, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "model"])
def test_a_resumed_training_is_an_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    whole = _request(tmp_path / "p", tmp_path / "whole.safetensors", kind=kind)
    first = train_draft(whole)
    part = replace(whole, out=tmp_path / "part.safetensors")
    said: list[str] = []

    def stop(step: int, *_: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_draft(part, TrainCallbacks(measured=stop))
    second = train_draft(part, TrainCallbacks(note=said.append))
    assert second.best.accept_length == first.best.accept_length
    assert part.out.read_bytes() == whole.out.read_bytes()


def test_a_head_drafts_the_most_frequent_tokens(tmp_path: Path) -> None:
    """Put on a head that drafts all, in a training of its own."""
    whole = _request(tmp_path / "p", tmp_path / "whole.safetensors")
    train_draft(whole)
    part = replace(whole, out=tmp_path / "part.safetensors", start_from=whole.out, draft_vocab=5, steps=1)
    train_draft(part)
    target = load_target(whole.loaded.files["target.weights"])
    assert load_draft(whole.out, target).draft_ids is None
    ids = load_draft(part.out, target).draft_ids
    assert ids is not None
    assert len(ids) == 5
    for count in (target.cfg.vocab, target.cfg.vocab + 1):
        with pytest.raises(UserError, match="--draft-vocab: expected fewer than the target's"):
            train_draft(replace(part, out=tmp_path / "no.safetensors", draft_vocab=count))


def test_wrong_requests_are_one_line(tmp_path: Path) -> None:
    asked = _request(tmp_path / "p", tmp_path / "d.safetensors")
    with pytest.raises(UserError, match="--data: expected self:N for a target that writes text"):
        train_draft(replace(asked, data=str(tmp_path), prompts=()))
    with pytest.raises(UserError, match="--tokens: expected 1 to 16"):
        train_draft(replace(asked, tokens=17))


@pytest.mark.parametrize("draft_vocab", [None, 5])
def test_the_measure_is_what_real_rounds_give(draft_vocab: int | None) -> None:
    """Rounds of the loop against expected ones, on 256 texts each: at most four standard errors apart."""
    torch.manual_seed(1)
    target = Decoder(replace(CFG, tied=False)).eval().requires_grad_(False)
    head = Eagle(EagleConfig(dim=32, heads=4, ffn=48, kv_heads=2, pairs="half")).eval().requires_grad_(False)
    if draft_vocab is not None:
        head = drafting(head, torch.tensor([0, 3, 4, 8, 11]))
    sampling, texts, length, ends, most = Sampling(temperature=2.0), 256, 3, (3, 7), 8
    text = np.random.default_rng(0).integers(1, 12, (texts, 6))
    start = np.resize(np.array([3, 1, 4, 2]), texts)
    engine = TorchEngine(target, head, None)
    session = engine.open(engine.encode_condition(text), capacity(engine.dims, length), start)
    extent = Extent(ends, (most,) * texts, 1)
    drawn = generate(session, Law((1.0,) * length), sampling, range(texts), loop="host", extent=extent)
    assert drawn.lengths is not None
    rounds, tokens = drawn.statistics.rounds, drawn.lengths - 1
    simulated = tokens.sum() / rounds.sum()
    error = (tokens - simulated * rounds).std() / rounds.mean() / texts**0.5

    codes = draw_texts(target, Rows(text, start), sampling, range(1000, 1000 + texts), ends, most)
    example = Example(
        torch.from_numpy(text), torch.from_numpy(start), codes.clamp(min=0), None, (), text_lengths(codes)
    )
    along = TextHeadStudent(head, target).along
    found = measure_texts(along, Objective(sampling), [example], (1.0,) * length, most)
    assert len(set(drawn.lengths.tolist())) > 3
    assert found.accept_length > 1.2
    assert abs(found.accept_length - simulated) < 4 * 2**0.5 * error < 0.5, (found, simulated, error)
    assert found.relaxed == pytest.approx(found.accept_length, abs=0.1)

"""Every registered family as graph modules, and as exported graphs in ONNX Runtime, against its eager network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.contract import GraphContract, condition_contract, draft_contract, image_contract, target_contract
from coolsd_rt.export.check import check_graph
from coolsd_rt.export.graphs import ConditionGraph, DraftGraph, ImageGraph, TargetGraph
from coolsd_rt.export.propose import ProposeGraph
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.export.widths import fold_queries
from coolsd_rt.models.decoder import MlpHead
from coolsd_rt.models.layout import Layout
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.ops import process_logits, sample
from tests.models.family_cases import (
    CAPACITY,
    CONFIGS,
    FAMILY_NAMES,
    HEADS,
    ROWS,
    eager,
    image,
    module_caches,
    random_draft,
    random_target,
    relative,
    stepped,
)

every_family = pytest.mark.parametrize("name", FAMILY_NAMES)
PADDED = [n for n in FAMILY_NAMES if CONFIGS[n].padded]


def session(module: nn.Module, contract: GraphContract, name: str) -> Any:
    """The exported graph, as engines for a CPU have it, as a function of the contract's inputs, in torch tensors."""
    model = to_onnx(module, contract)
    fold_queries(model)
    check_graph(model, contract, name=name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    runner = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def call(values: Sequence[Tensor]) -> list[Tensor]:
        feed = {spec.name: value.numpy() for spec, value in zip(contract.inputs, values, strict=True)}
        return [torch.from_numpy(np.array(out)) for out in runner.run(None, feed)]

    return call


@every_family
@torch.no_grad()
def test_target_modules(name: str) -> None:
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    graph, prefix = TargetGraph(target), ConditionGraph(target.cls_embedding)(given.condition)
    caches = module_caches(target.caches(ROWS, CAPACITY))

    def step(ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal caches
        logits, features, *out = graph(ids, pos, prefix, caches, given.start)
        caches = tuple(out)
        return logits, features

    pairs = zip(stepped(cfg, given.tokens, step), stepped(cfg, given.tokens, eager(target, given)), strict=True)
    for found, wanted in pairs:
        assert relative(found.logits, wanted.logits) < 1e-5
        assert relative(found.features, wanted.features) < 1e-5


@pytest.mark.parametrize("kind", HEADS)
@every_family
@torch.no_grad()
def test_draft_modules(name: str, kind: str) -> None:
    """A head with the target's embedding, LANTERN's two kinds, and one that drafts few tokens."""
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    if kind == "part" and isinstance(target.output, MlpHead):
        pytest.skip("refused when it is loaded")
    draft = random_draft(target, **HEADS[kind], **({"vocab": cfg.vocab} if kind == "lantern" else {}))
    prefix, torch_caches = target.condition(given.condition), draft.caches(ROWS, CAPACITY)
    graph, caches = DraftGraph(draft, target), module_caches(torch_caches)
    for pos, size in (((0, 0, 0), cfg.prefix), ((5, 5, 5), 1), ((6, 7, 6), 4)):
        ids, at = torch.randint(0, cfg.layout.codes, (ROWS, size)), torch.tensor(pos)
        features = torch.randn(ROWS, size, cfg.dim)
        logits, guessed, *out = graph(ids, features, at, prefix, caches, given.start)
        caches = tuple(out)
        wanted, seen = draft.step(target, ids, features, at, prefix, torch_caches, given.start)
        assert relative(logits, wanted) < 1e-5
        assert relative(guessed, seen) < 1e-5


@pytest.mark.parametrize("name", PADDED)
@torch.no_grad()
def test_a_head_that_sees_padding_sees_it(name: str) -> None:
    """Where it stands changes the one head and not the other."""
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    assert given.start is not None
    ids, features = torch.zeros(ROWS, cfg.prefix, dtype=torch.int64), torch.randn(ROWS, cfg.prefix, cfg.dim)
    other = features.clone()
    other[1, 0] += 1.0  # before the start of row 1, which is 2
    pos, prefix = torch.zeros(ROWS, dtype=torch.int64), target.condition(given.condition)
    for sees in (True, False):
        draft = random_draft(target, sees_padding=sees)
        pair = [
            draft.step(target, ids, f, pos, prefix, draft.caches(ROWS, CAPACITY), given.start)[0][:, -1]
            for f in (features, other)
        ]
        assert torch.equal(pair[0][[0, 2]], pair[1][[0, 2]])
        assert torch.allclose(pair[0][1], pair[1][1]) is not sees


@pytest.mark.parametrize("sees_padding", [False, True])
@every_family
@torch.no_grad()
def test_propose_graphs(name: str, sees_padding: bool) -> None:
    """Two images with ragged counts and starts: the single steps of the eager head with the ops of the loop."""
    cfg, length, w = CONFIGS[name], 3, CONFIGS[name].prefix
    target = random_target(cfg)
    draft = random_draft(target, vocab=cfg.vocab, **HEADS["lantern" if sees_padding else "anole"])
    torch.manual_seed(4)
    prefix, caches = torch.randn(4, w, cfg.dim), draft.caches(4, CAPACITY)
    for cache in caches:
        cache.k[:, :, : w + 2].normal_()
        cache.v[:, :, : w + 2].normal_()
    start = torch.tensor([0, 2, w - 1, 2]) if cfg.padded else None
    ids = torch.randint(0, cfg.layout.codes, (2, 4)).repeat(2, 1)
    features, pos, count = torch.randn(4, 4, cfg.dim), torch.tensor([w, w + 1] * 2), torch.tensor([4, 2, 4, 2])
    uniforms, scale = torch.rand(2, length), 1 + 2 * torch.rand(2, length)
    tokens, probs, *_ = ProposeGraph(draft, target, length)(
        ids,
        features,
        pos,
        prefix,
        count,
        uniforms,
        scale,
        torch.tensor(0.9),
        torch.tensor([7]),
        module_caches(caches),
        start,
    )
    logits, guessed = draft.step(target, ids, features, pos, prefix, caches, start)
    row = torch.arange(4)
    logits, feature = logits[row, count - 1][:, None], guessed[row, count - 1][:, None]
    for i in range(length):
        if i:
            both = torch.cat([tokens[:, i - 1], tokens[:, i - 1]])[:, None]
            logits, feature = draft.step(target, both, feature, pos + count - 1 + i, prefix, caches, start)
        q = process_logits(logits, scale[:, i : i + 1], 0.9, 7, 1.0)
        assert torch.allclose(probs[:, i], q[:, 0], atol=1e-5)
        assert torch.equal(tokens[:, i], sample(q, uniforms[:, i : i + 1])[:, 0])
        assert (tokens < cfg.layout.codes).all()


@every_family
@torch.no_grad()
def test_exported_graphs_in_onnx_runtime(name: str) -> None:
    """Condition, target and draft: prefill, steps and verification with rollback, from the graphs' bytes. One layer."""
    cfg = replace(CONFIGS[name], layers=1)
    target, given = random_target(cfg), image(cfg)
    draft = random_draft(target, vocab=cfg.vocab, **HEADS["lantern" if cfg.padded else "anole"])
    dims = model_dims(cfg, draft.cfg)
    (prefix,) = session(ConditionGraph(target.cls_embedding), condition_contract(dims), "condition")([given.condition])
    assert relative(prefix, target.condition(given.condition)) < 1e-5
    call = session(TargetGraph(target), target_contract(dims), "target")
    caches = module_caches(target.caches(ROWS, CAPACITY))
    starts = [given.start] if given.start is not None else []

    def step(ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal caches
        logits, features, *out = call([ids, pos, prefix, *caches, *starts])
        caches = tuple(out)
        return logits, features

    pairs = zip(stepped(cfg, given.tokens, step), stepped(cfg, given.tokens, eager(target, given)), strict=True)
    for found, wanted in pairs:
        begin = max(0, int(given.start[found.row]) - found.at) if given.start is not None else 0
        assert relative(found.logits[begin:], wanted.logits[begin:]) < 1e-4
        assert relative(found.features[begin:], wanted.features[begin:]) < 1e-4

    torch_caches = draft.caches(ROWS, CAPACITY)
    head = session(DraftGraph(draft, target), draft_contract(dims), "draft")
    ids, pos = torch.randint(0, cfg.layout.codes, (ROWS, 4)), torch.tensor([6, 7, 6])
    features = torch.randn(ROWS, 4, cfg.dim)
    logits, guessed, *_ = head([ids, features, pos, prefix, *module_caches(torch_caches), *starts])
    wanted_logits, seen = draft.step(target, ids, features, pos, prefix, torch_caches, given.start)
    assert relative(logits, wanted_logits) < 1e-4
    assert relative(guessed, seen) < 1e-4


@pytest.mark.parametrize("unit", [True, False])
@torch.no_grad()
def test_only_codes_are_decoded(unit: bool) -> None:
    """Line ends and the end stay out of the image, in the module and in the exported graph."""
    layout = Layout(32, 4, 4, line_end=32, end=33)
    cfg = VQConfig(32, 4, 8, (1, 2), 8, 1, 4, low_attention=unit, unit_codes=unit)
    torch.manual_seed(5)
    tokenizer = VQTokenizer(cfg).eval()
    codes = torch.randint(0, 32, (2, 16))
    tokens = torch.from_numpy(layout.forced).repeat(2, 1)
    tokens[:, torch.from_numpy(layout.code_positions)] = codes
    wanted = ((tokenizer.decode(codes) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(ImageGraph(tokenizer, layout)(tokens), wanted)
    if unit:
        return
    dims = model_dims(CONFIGS["lumina-mgpt"], None)
    assert dims.tokens == layout.tokens
    call = session(ImageGraph(tokenizer, layout), image_contract(dims, 8), "image")
    (pixels,) = call([tokens])
    assert (pixels.int() - wanted.int()).abs().max() <= 1

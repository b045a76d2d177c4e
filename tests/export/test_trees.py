"""The graphs of an engine with trees, in ONNX Runtime's session: as chain steps along each path of a tree."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from coolsd_rt.backends.description import Description
from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.onnxruntime.session import OrtSession
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.contract import GraphContract, draft_contract, target_contract
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.check import check_graph
from coolsd_rt.export.graphs import TreeDraftGraph, TreeTargetGraph
from coolsd_rt.export.ops import branch_mask
from coolsd_rt.export.products import constant_products
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.rowwise import quantize_rowwise
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.export.widths import fold_queries
from coolsd_rt.models.layers import Tree, branches
from coolsd_rt.workflows.build.accuracy import losses_of
from coolsd_rt.workflows.build.smoke import inputs
from tests.models.family_cases import CAPACITY, CONFIGS, ROWS, image, module_caches, random_draft, random_target
from tests.trees import Grown, Planted, TreeCheck

OPTIONS = LoadOptions(threads=1, spinning=False, verbose=True)
NAMES = ("llamagen", "llama")
"""RoPE on a grid; RoPE on a line with shared keys and padded prefixes whose angles count from their start."""
INT8 = 1e-2
"""Measured: 1e-6, and 0.15 with the mildest bug; one step of an activation may make 1e-3."""


@pytest.fixture(autouse=True)
def no_copies(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """ONNX Runtime warns whenever a TensorScatter had to copy: a cache, or the mask of a tree."""
    yield
    assert "in-place optimization not activated" not in capfd.readouterr().err


@functools.cache
def networks(name: str) -> tuple[Any, Any]:
    target = random_target(CONFIGS[name])
    return target, random_draft(target)


def description(name: str, tree: bool = True) -> Description:
    target, draft = networks(name)
    return Description(model_dims(target.cfg, draft.cfg), 3, 0, propose=False, tree=tree)


@functools.cache
def exported(name: str, graph: str) -> bytes:
    """A graph as it is exported, in fp32, as engines for a CPU have it."""
    target, draft = networks(name)
    module = TreeTargetGraph(target) if graph == "target" else TreeDraftGraph(draft, target)
    contract = description(name).graphs[graph].contract
    model = to_onnx(module, contract)
    assert fold_queries(model)
    check_graph(model, contract, name=graph)
    return bytes(model.SerializeToString())


@functools.cache
def loaded(name: str, graph: str, form: str) -> OrtGraph:
    model = onnx.ModelProto.FromString(exported(name, graph))
    if form == "rowwise":
        assert quantize_rowwise(model, list(constant_products(model.graph)), unsigned=True)
    elif form == "block":
        assert quantize(model)
    return OrtGraph(graph, model.SerializeToString(), description(name).graphs[graph].contract, OPTIONS)


def session(name: str, form: str = "fp32", rows: int = ROWS, even_rows: bool = False) -> OrtSession:
    given, (target, _) = image(CONFIGS[name]), networks(name)
    graphs = {graph: loaded(name, graph, form) for graph in ("target", "draft")}
    with torch.no_grad():
        prefix = target.condition(given.condition)[:rows].numpy()
    start = None if given.start is None else given.start[:rows].numpy()
    return OrtSession(description(name), graphs, prefix, CAPACITY, start, even_rows)


def checked(name: str, form: str = "fp32", bug: str = "", tolerance: float = 1e-4) -> TreeCheck:
    cfg = CONFIGS[name]
    first, second = (session(name, form, even_rows=form != "fp32") for _ in range(2))
    branching = Planted(first, bug) if bug else first
    return TreeCheck(branching, second, ROWS, cfg.prefix, cfg.layout.codes, cfg.dim, tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_is_its_paths(name: str) -> None:
    checked(name).all()


@pytest.mark.parametrize("form", ["block", "rowwise"])
def test_a_tree_of_int8_is_its_paths(form: str) -> None:
    """Activations are rounded to 8 bits, and a rounding of attention's sums may become a step of one."""
    check = checked("llama", form, tolerance=INT8)
    check.all()
    planted = checked("llama", form, bug="sibling", tolerance=INT8)
    with pytest.raises(AssertionError):
        planted.all()


@pytest.mark.parametrize("bug", ["sibling", "depth", "moved"])
def test_planted_bugs_are_seen(bug: str) -> None:
    check = checked("llama", bug=bug)
    with pytest.raises(AssertionError):
        check.all()
    assert check.worst > 1e-3


@pytest.mark.parametrize("bug", ["sibling", "depth"])
def test_planted_bugs_of_the_head_are_seen(bug: str) -> None:
    with pytest.raises(AssertionError):
        checked("llama", bug=bug).draft(Grown.of((3, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_both_backends_step_alike_along_a_tree(name: str) -> None:
    """ONNX Runtime beside the eager networks: chain steps, trees, and steps after moves."""
    (target, draft), cfg, given = networks(name), CONFIGS[name], image(CONFIGS[name])
    eager = TorchEngine(target, draft, None)
    reference = eager.open(eager.encode_condition(given.condition), CAPACITY, given.start)
    TreeCheck(session(name), reference, ROWS, cfg.prefix, cfg.layout.codes, cfg.dim, 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_modules_of_the_graphs_are_the_eager_steps(name: str) -> None:
    """Before they are exported."""
    (target, draft), cfg, given = networks(name), CONFIGS[name], image(CONFIGS[name])
    grown, pos = Grown.of((2, 2)), torch.full((ROWS,), cfg.prefix)
    tree = Tree(torch.from_numpy(grown.depth(ROWS)), torch.from_numpy(grown.seen(ROWS)))
    ids, prefix = given.tokens[:, : tree.depth.shape[1]], target.condition(given.condition)
    features = torch.randn(*ids.shape, cfg.dim)
    start = () if given.start is None else (given.start,)
    caches = target.caches(ROWS, CAPACITY)
    found = TreeTargetGraph(target)(ids, pos, *tree, prefix, module_caches(caches), *start)
    for x, y in zip(found[:2], target.step(ids, pos, prefix, caches, *start, tree=tree), strict=True):
        assert torch.allclose(x, y, atol=1e-4)
    caches = draft.caches(ROWS, CAPACITY)
    found = TreeDraftGraph(draft, target)(ids, features, pos, *tree, prefix, module_caches(caches), *start)
    for x, y in zip(found[:2], draft.step(target, ids, features, pos, prefix, caches, *start, tree=tree), strict=True):
        assert torch.allclose(x, y, atol=1e-4)


def test_moved_rows_stay_in_their_memory() -> None:
    """The caches are bound to the graphs' calls: a move writes where they are."""
    one = session("llamagen")
    check = TreeCheck(one, session("llamagen"), ROWS, 3, 32, 64, 1e-4)
    before = {name: memory.array for name, memory in one._target_caches.memory.items()}
    tree = Grown.of((2, 1))
    check.moved(tree, check.target(tree))
    assert all(one._target_caches.memory[name].array is array for name, array in before.items())


def names(contract: GraphContract) -> list[str]:
    return [spec.name for spec in contract.inputs if "T" not in spec.shape]


def test_an_engine_without_a_tree_has_the_contract_of_before() -> None:
    plain, tree = description("llama", False), description("llama")
    assert "tree" not in plain.as_dict()
    assert names(plain.graphs["target"].contract) == ["ids", "pos", "prefix", "start"]
    assert names(plain.graphs["draft"].contract) == ["ids", "features_in", "pos", "prefix", "start"]
    assert names(tree.graphs["target"].contract) == ["ids", "pos", "depth", "seen", "prefix", "start"]
    assert names(tree.graphs["draft"].contract) == ["ids", "features_in", "pos", "depth", "seen", "prefix", "start"]
    for dims, contract in ((plain.dims, target_contract), (plain.dims, draft_contract)):
        assert contract(dims) == contract(dims, tree=False)
    for made in (plain, tree):
        assert Description.from_dict(made.as_dict()) == made


def test_an_engine_without_a_tree_refuses_to_step_along_one() -> None:
    made = session("llamagen")
    made._description = description("llamagen", tree=False)
    one = np.zeros((ROWS, 1), np.int64)
    shape = one, np.ones((ROWS, 1, 1), np.bool_)
    features = np.zeros((ROWS, 1, 64), np.float32)
    for step, given in (("target_tree", (one, one[:, 0])), ("draft_tree", (one, features, one[:, 0]))):
        with pytest.raises(CoolsdError, match="expected an engine with a tree, found one without"):
            getattr(made, step)(*given, *shape)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"propose": True}, "found the graph propose"), ({"dims": {"draft_layers": 0}}, "found the draft none")],
)
def test_descriptions_of_no_engine_are_refused(changes: dict[str, Any], words: str) -> None:
    data = description("llamagen").as_dict()
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    with pytest.raises(CoolsdError, match=words):
        Description.from_dict(data)


def test_checks_of_a_build_give_trees_valid_inputs() -> None:
    """Every position sees itself, and the smoke test's positions branch; int8 is judged along a chain."""
    contract = description("llama").graphs["draft"].contract
    made = inputs(contract)
    assert made["seen"].dtype == np.bool_
    assert made["seen"].diagonal(axis1=1, axis2=2).all()
    assert not made["seen"][:, 2, 1].any()
    assert made["depth"].tolist() == [[0, 1, 1]] * len(made["ids"])
    target, draft = networks("llama")
    given = {"prefix": torch.randn(2, 6, 64), "features_in": torch.randn(2, 38, 64)}
    losses = losses_of(TreeDraftGraph(draft, target), contract, given, 32, [(64, 192), (128, 64)])
    assert losses
    assert all(0 < loss.rowwise < 0.1 for loss in losses.values())


def test_the_mask_of_the_graphs_is_the_eager_networks() -> None:
    """Written by one operator there, and gathered here."""
    tree, pos, capacity = Grown.random(6, 3), torch.tensor([0, 4, 13]), 20
    seen = torch.from_numpy(tree.seen(3))
    before = (torch.arange(capacity) < pos[:, None])[:, None].expand(-1, seen.shape[1], -1)
    assert torch.equal(branch_mask(before, seen, pos), branches(pos, seen, capacity))

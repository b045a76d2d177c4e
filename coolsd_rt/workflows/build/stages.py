"""The stages of a build: each turns weights into checked files in a folder.

Knows networks, export, precision and the smoke test that every graph has to pass. Does not know caching or engine
folders (`build` and the store do). Imports torch and onnx, so it is imported only when a stage has to run.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import nn

from coolsd_rt.backends import Description
from coolsd_rt.backends.description import DATA, NEIGHBOURS_FILE, WEIGHTS
from coolsd_rt.checkpoints.load import load_draft, load_draft_model, load_rows, load_target, load_tokenizer
from coolsd_rt.cores import limit_torch
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.check import check_graph
from coolsd_rt.export.external import write
from coolsd_rt.export.graphs import ConditionGraph, DraftGraph, ImageGraph, TargetGraph, TreeDraftGraph, TreeTargetGraph
from coolsd_rt.export.image import rewrite_decoder
from coolsd_rt.export.lengths import mask_to_lengths
from coolsd_rt.export.propose import ProposeGraph
from coolsd_rt.export.row_graph import RowGraph
from coolsd_rt.export.torch_onnx import to_outline
from coolsd_rt.export.widths import fold_queries
from coolsd_rt.law import columns_read, nearest_codes
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.embedders import TextEmbedder
from coolsd_rt.models.families import read_target
from coolsd_rt.models.layout import Layout
from coolsd_rt.models.lazy import value
from coolsd_rt.models.rows import RowHead
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.prompts import UNCONDITIONAL_FILE
from coolsd_rt.store import sha256_file
from coolsd_rt.workflows.build.accuracy import calibration, losses_of
from coolsd_rt.workflows.build.forms import MatrixForms
from coolsd_rt.workflows.build.smoke import smoke


@dataclass
class BuildInputs:
    """The files of a spec, loaded when a stage first needs them. `hashes` are those in the stage keys."""

    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    description: Description
    precision: str
    neighbours: int
    prompts: Mapping[str, str]  # files that read prompts: name in the engine's folder to the spec's key
    lengths: bool = False  # attention takes lengths instead of a mask: the fast path of ONNX Runtime's CUDA provider
    on_cpu: bool = False  # forms of attention and of the image decoder for ONNX Runtime's CPU provider
    quantization: str = "block"  # the spec's engine.quantization
    forms: Mapping[str, Any] | None = None  # the record of the stage `quantization`; None: all matrices by blocks
    _read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        limit_torch()

    def path(self, key: str) -> Path:
        """Return the path of a file. Raises CoolsdError if the file has changed since the build was planned."""
        path = self.files[key]
        if (found := sha256_file(path)) != self.hashes[key]:
            expected = f"SHA-256 {self.hashes[key][:12]}…, as when the build began"
            raise CoolsdError(f"{path} ({key})", expected=expected, found=f"{found[:12]}…", fix="build again")
        return path

    @cached_property
    def target(self) -> Decoder:
        """The target network in the graphs' dtype.

        Its RoPE table has that dtype too, since the operator requires one dtype for all inputs. Each weight is read
        when it is written.
        """
        return load_target(self.path("target.weights"), self.dtype, lazy=True)

    @property
    def layout(self) -> Layout:
        """Positions of the image codes among the image tokens, from the target's header."""
        return read_target(self.files["target.weights"]).layout

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of the graphs."""
        return cast(torch.dtype, getattr(torch, self.description.dtype))

    @cached_property
    def draft(self) -> Eagle | RowHead | Decoder:
        """The draft network. Call only if the spec has a draft with weights."""
        path, kind = self.path("draft.weights"), self.description.dims.draft_kind
        if kind == "rows":
            return load_rows(path, self.target, self.dtype, lazy=True)
        loader = load_draft if kind == "eagle" else load_draft_model
        return loader(path, self.target, self.dtype, lazy=True)

    @cached_property
    def tokenizer(self) -> VQTokenizer:
        """The image tokenizer, whose decoder turns codes into pixels."""
        return load_tokenizer(self.path("image.weights"))


def condition(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Write condition.onnx, and the files that read prompts, so that the engine is self-contained."""
    facts = prompts(sources, folder)
    networks = [sources.target, *([sources.draft] if sources.description.dims.draft_kind == "model" else [])]
    embedders = [n.cls_embedding for n in networks if isinstance(n, Decoder)]
    return facts | _write(sources, folder, "condition", ConditionGraph(*embedders), "fp32")


def target(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Write target.onnx."""
    module = (TreeTargetGraph if sources.description.tree else TargetGraph)(sources.target)
    forms = _forms(sources, "target", module)
    return _write(sources, folder, "target", module, sources.precision, forms)


def draft(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Write draft.onnx, and for an EAGLE head propose.onnx, which runs all draft steps in one graph."""
    network, precision = sources.draft, sources.precision
    if isinstance(network, Decoder):
        own = TargetGraph(network)
        return _write(sources, folder, "draft", own, precision, _forms(sources, "draft", own))
    if isinstance(network, RowHead):
        rows = RowGraph(network, sources.target)
        return _write(sources, folder, "draft", rows, precision, _forms(sources, "draft", rows))
    module = (TreeDraftGraph if sources.description.tree else DraftGraph)(network, sources.target)
    forms = _forms(sources, "draft", module)
    facts = _write(sources, folder, "draft", module, precision, forms)
    if sources.description.propose:
        propose = ProposeGraph(network, sources.target, sources.description.draft_length)
        facts |= _write(sources, folder, "propose", propose, precision, forms)
    return facts


def _forms(sources: BuildInputs, graph: str, module: nn.Module) -> MatrixForms:
    """The forms of a graph's matrices, and what the row-wise ones lose."""
    forms = MatrixForms.of(sources.forms, graph)
    if not forms.rowwise:
        return forms
    network = sources.draft if graph == "draft" and isinstance(sources.draft, Decoder) else sources.target
    given = calibration(network, sources.target, sources.description.dims)
    contract, codes = sources.description.graphs[graph].contract, sources.description.dims.vocab
    losses = losses_of(module, contract, given, codes, forms.rowwise)
    return replace(forms, losses=losses)


def image(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Write image.onnx and the neighbours of each code in the codebook.

    The graph is float32 at any precision, since it runs once per image.
    """
    codes(sources, folder)
    return _write(sources, folder, "image", ImageGraph(sources.tokenizer, sources.layout), "fp32")


def codes(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Write the neighbours of each code in the codebook.

    The table has one column more than the lantern rules lend from, because LANTERN's original residual reads it.
    """
    if sources.description.side:
        codebook = sources.tokenizer.quantize.embedding.weight.numpy()
    else:
        codebook = value(sources.target.tok_embeddings.weight).float().numpy()
    write_neighbours(folder, codebook, sources.neighbours)
    return {}


def write_neighbours(folder: Path, codebook: np.ndarray[Any, Any], wanted: int) -> None:
    """Write the nearest rows of each row of `codebook`, float32 [V, D]: one column more than the `wanted` ones.

    Fewer where the codebook has fewer rows.
    """
    near = nearest_codes(codebook, columns_read(wanted, len(codebook)))
    np.save(folder / NEIGHBOURS_FILE, near.astype(np.int32), allow_pickle=False)


def prompts(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Write the files that read prompts: the condition's, and the target's unconditional embedding."""
    for file, key in sources.prompts.items():
        shutil.copyfile(sources.path(key), folder / file)
    embedder = sources.target.cls_embedding if sources.description.dims.condition_dim else None
    if isinstance(embedder, TextEmbedder):
        np.save(folder / UNCONDITIONAL_FILE, value(embedder.uncond_embedding).float().numpy(), allow_pickle=False)
    return {"ids": read_target(sources.files["target.weights"]).condition_size[0]}


def weights(sources: BuildInputs, folder: Path) -> dict[str, Any]:
    """Copy the weights files for a backend that runs the networks directly.

    Reads every number once to check it is finite.
    """
    networks: list[nn.Module] = [sources.target]
    networks += [sources.tokenizer] if "image.weights" in sources.files else []
    networks += [sources.draft] if "draft.weights" in sources.files else []
    for network in networks:
        for tensor in network.state_dict().values():
            value(tensor)
    for name, file in WEIGHTS.items():
        if (key := f"{name}.weights") in sources.files:
            shutil.copyfile(sources.path(key), folder / file)
    return {}


PRODUCERS: Mapping[str, Callable[[BuildInputs, Path], dict[str, Any]]] = {
    "condition": condition,
    "target": target,
    "draft": draft,
    "image": image,
    "codes": codes,
    "prompts": prompts,
    "weights": weights,
}


def _write(
    sources: BuildInputs, folder: Path, name: str, module: nn.Module, precision: str, forms: MatrixForms | None = None
) -> dict[str, Any]:
    """Export a graph, quantise it, compare it with the module, and write it. Returns facts for the manifest."""
    record = sources.description.graphs[name]
    outline = to_outline(module, record.contract)
    if sources.lengths:
        mask_to_lengths(outline.model)
    if sources.on_cpu:
        fold_queries(outline.model)
    decoder = rewrite_decoder(outline) if sources.on_cpu and isinstance(module, ImageGraph) else {}
    forms = forms or MatrixForms()
    rowwise, blocks = forms.quantize(outline) if precision == "int8" else ([], [])
    check_graph(outline.model, record.contract, name=name)
    path = folder / record.file
    beside = write(outline, path, folder / f"{record.file}{DATA}")
    dtypes = {spec.dtype for spec in (*record.contract.inputs, *record.contract.outputs)}
    error: float | None = None  # None: the CPU provider cannot run bfloat16; parity on the GPU tests it
    if "bfloat16" not in dtypes:
        halved = "float16" in dtypes and precision != "int8"
        ids = len(module.table) if isinstance(module, ImageGraph) else 2
        error = smoke(name, path, record.contract, module, "fp16" if halved else precision, beside, ids)
    facts = _facts(outline.model, len(rowwise) + len(blocks), error) | forms.facts(len(rowwise))
    return {name: facts | ({"rewritten": dict(decoder)} if decoder else {})}


def _facts(model: onnx.ModelProto, quantised: int, error: float | None) -> dict[str, Any]:
    operators = Counter(n.op_type for n in model.graph.node)
    return {
        "nodes": len(model.graph.node),
        "operators": dict(sorted(operators.items())),
        "quantised_matrices": quantised,
        "smoke_error": None if error is None else float(f"{error:.3g}"),
    }

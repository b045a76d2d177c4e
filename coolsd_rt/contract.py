"""The tensor contract: inputs and outputs of every graph of an engine. Shared by export, backends and the loop.

Pure data: knows names, shapes and dtypes. Does not know any library that computes.

Legend: R rows (2 per image under CFG: all conditional rows first, then all unconditional), S new positions, T cache
capacity, N = T at run time (any bucket), H KV heads, D head dim, C model dim, V codes, W prefix length, M images, L
draft length, P length of a prefix that may be cut.

One graph serves prefill, decoding and verification, which differ only in S. A position p < W is a prefix position and
takes its embedding from `prefix[:, p]` (its id is ignored); a position p >= W is image token p - W and takes its
embedding from `ids`. The logits at position W - 1 predict image token 0. If prompts differ in length (`padded`),
prefixes are right-aligned, and `start` is each row's first position: positions before it are masked, and a model with
one-dimensional RoPE counts from there. The graphs of such a model (`cut`) take the last P positions of its prefix for
the whole of it: no result depends on the padding that all rows of a step share, so that it needs no cache rows.

The graphs of an engine with trees have two more inputs, which say how the S positions branch. `depth` is added to `pos`
for the angle and the embedding of a position; `seen[:, s, j]` says whether position s attends to position j of the same
step, which is written to cache row pos + j. Rows before `pos` are seen from `start` on, as in a chain. A chain is depth
0, 1, 2, ... and a lower triangle, so that the same graph serves both.

Logits are float32 whatever dtype the graph computes in; features, prefix and caches have the graph's dtype.

The draft has four forms. An EAGLE head: its row t pairs the target's feature at position t with the token at position
t + 1, and its logits predict the token at position t + 2. So `ids[:, s]` of a draft step is the token at position `pos
+ s + 1`, and the draft's cache row index is the position of the feature.

An independent small model (`draft_dim` > 0): it is stepped like the target, with its own part of the prefix, which
follows the target's part. A row head (`row` > 0) has no cache: one step gives the logits of all drafts of a round, from
the target's features and the tokens of the row above, and of the last decided token. Or no draft (`draft_layers` and
`row` are 0): Jacobi decoding needs no graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

CONTRACT_VERSION = 4
Floating = Literal["float32", "float16", "bfloat16"]
DType = Literal["int64", "float32", "float16", "bfloat16", "uint8", "bool"]
DraftKind = Literal["eagle", "model", "rows", "none"]


OPTIONAL_DIMS = ("cut", "row", "ahead")
"""Fields of `ModelDims` that are stored where they are not 0: engines of before do not have them."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph. A dimension is a size, or the name of a size that varies from call to call."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ModelDims:
    """The sizes that the loop, the backends and the exporter share."""

    vocab: int  # V
    dim: int  # C
    layers: int
    heads: int  # KV heads H
    head_dim: int  # D
    prefix: int  # W
    tokens: int  # image tokens of one image
    draft_layers: int
    draft_heads: int
    draft_head_dim: int
    draft_dim: int = 0  # width of an independent draft model; 0: an EAGLE head, or no draft
    padded: int = 0  # 1: prefixes of different lengths, padded on the left
    condition_dim: int = 0  # width of text encoder features that the condition graph reads; 0: it reads ids
    cut: int = 0  # 1: steps take prefixes of any length up to W
    row: int = 0  # tokens of a row, its line end included, of a row head; 0: another draft
    ahead: int = 0  # drafts of a round that a row head guesses along the row too

    @property
    def draft_kind(self) -> DraftKind:
        """The form of the draft: "none", "model", "rows" or "eagle"."""
        if self.row:
            return "rows"
        return "none" if not self.draft_layers else "model" if self.draft_dim else "eagle"

    @property
    def positions(self) -> int:
        """Positions of a whole image: prefix and image tokens."""
        return self.prefix + self.tokens

    def first(self, starts: Iterable[int]) -> int:
        """Return the position from which on rows are stepped whose prefixes begin at `starts`: nothing before is kept.

        Without `cut` it is 0.
        """
        return int(min(starts)) if self.cut else 0

    def as_dict(self) -> dict[str, int]:
        """Return JSON data, without `OPTIONAL_DIMS` that are 0."""
        return {name: size for name, size in asdict(self).items() if size or name not in OPTIONAL_DIMS}


def cache_names(layers: int) -> list[tuple[str, str]]:
    """Return the (input, output) names of the KV tensors in binding order.

    Inputs are k_0, v_0, k_1, ...; an output is its input's name and `_out`.
    """
    return [(f"{kind}_{i}", f"{kind}_{i}_out") for i in range(layers) for kind in ("k", "v")]


def _caches(layers: int, heads: int, head_dim: int, dtype: Floating, out: bool) -> list[TensorSpec]:
    return [TensorSpec(n[out], dtype, ("R", heads, "T", head_dim)) for n in cache_names(layers)]


@dataclass(frozen=True)
class GraphContract:
    """The inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


TREE_INPUTS = (TensorSpec("depth", "int64", ("R", "S")), TensorSpec("seen", "bool", ("R", "S", "S")))
"""The inputs behind `pos` that the steps of an engine with trees have."""


def target_contract(d: ModelDims, dtype: Floating = "float32", tree: bool = False) -> GraphContract:
    """Contract of target.onnx: one step of the target over S positions of every row; KV caches are updated in place.

    tree: whether the positions may branch.
    """
    return _decoder(d, d.dim, (d.layers, d.heads, d.head_dim), dtype, tree)


def _decoder(d: ModelDims, dim: int, cache: tuple[int, int, int], dtype: Floating, tree: bool = False) -> GraphContract:
    """Contract of a step over S positions of every row, for a model of width `dim`.

    cache: (layers, heads, head dim).
    """
    return GraphContract(
        (
            TensorSpec("ids", "int64", ("R", "S")),
            TensorSpec("pos", "int64", ("R",)),
            *(TREE_INPUTS if tree else ()),
            TensorSpec("prefix", dtype, ("R", "P" if d.cut else d.prefix, dim)),
            *_caches(*cache, dtype, False),
            *([TensorSpec("start", "int64", ("R",))] if d.padded else []),
        ),
        (
            TensorSpec("logits", "float32", ("R", "S", d.vocab)),
            TensorSpec("features", dtype, ("R", "S", dim)),
            *_caches(*cache, dtype, True),
        ),
    )


def draft_contract(d: ModelDims, dtype: Floating = "float32", tree: bool = False) -> GraphContract:
    """Contract of draft.onnx: one step of the EAGLE head. Input features are the target's or the head's own.

    For an independent draft model: one step as in the target's contract, with the draft model's sizes; it has no tree.
    For a row head: `row_contract`.
    """
    if d.draft_kind == "rows":
        return row_contract(d, dtype)
    cache = (d.draft_layers, d.draft_heads, d.draft_head_dim)
    if d.draft_kind == "model":
        return _decoder(d, d.draft_dim, cache, dtype)
    base = _decoder(d, d.dim, cache, dtype, tree)
    features = TensorSpec("features_in", dtype, ("R", "S", d.dim))
    return GraphContract((base.inputs[0], features, *base.inputs[1:]), base.outputs)


def row_contract(d: ModelDims, dtype: Floating = "float32") -> GraphContract:
    """Contract of draft.onnx of a row head: the S drafts of a round in one step, without a cache.

    `ids[:, s]` is the token above draft s, and `features_in[:, s]` the target's feature at the position before that
    token. `end_ids` [R, 2] are the right neighbour of the last of these tokens (the last of them again, where that
    neighbour is the pending token) and the last decided token, with their features in the same way. `first_below` is
    the first draft with a row above it: what stands in `ids` and `features_in` for drafts before it is not used.
    """
    return GraphContract(
        (
            TensorSpec("ids", "int64", ("R", "S")),
            TensorSpec("features_in", dtype, ("R", "S", d.dim)),
            TensorSpec("end_ids", "int64", ("R", 2)),
            TensorSpec("end_features", dtype, ("R", 2, d.dim)),
            TensorSpec("first_below", "int64", ("R",)),
        ),
        (TensorSpec("logits", "float32", ("R", "S", d.vocab)),),
    )


def propose_contract(d: ModelDims, length: int) -> GraphContract:
    """Contract of propose.onnx: L draft steps with their sampling in one graph; uniforms are inputs.

    Takes the inputs of `draft` for the newly accepted positions (S is ragged: row r has `count[r]` valid ones, the rest
    is padding), and `uniforms`, `scale` (CFG, per image and draft position), `temperature`, `top_k` (V disables the
    filter). Returns the sampled tokens and the distributions they were sampled from, which are the Q of the ratio. Rows
    are 2M under CFG: row m conditional, row M + m unconditional. Without CFG the scale is 1 and rows are still paired.
    """
    base = draft_contract(d)
    return GraphContract(
        (
            *base.inputs[:4],
            TensorSpec("count", "int64", ("R",)),
            TensorSpec("uniforms", "float32", ("M", length)),
            TensorSpec("scale", "float32", ("M", length)),
            TensorSpec("temperature", "float32", ()),
            TensorSpec("top_k", "int64", (1,)),
            *base.inputs[4:],
        ),
        (
            TensorSpec("tokens", "int64", ("M", length)),
            TensorSpec("probs", "float32", ("M", length, d.vocab)),
            *base.outputs[2:],
        ),
    )


def condition_contract(d: ModelDims, dtype: Floating = "float32") -> GraphContract:
    """Contract of condition.onnx: maps ids, or a text encoder's features, to prefix embeddings.

    Ids are of words, a class or tokens. The target's embeddings come first, followed by those of an independent draft
    model.
    """
    ids = TensorSpec("condition", "int64", ("R", d.prefix))
    features = TensorSpec("condition", "float32", ("R", d.prefix, d.condition_dim))
    prefix = TensorSpec("prefix", dtype, ("R", d.prefix, d.dim + d.draft_dim))
    return GraphContract((features if d.condition_dim else ids,), (prefix,))


def image_contract(d: ModelDims, side: int) -> GraphContract:
    """Contract of image.onnx: maps code ids in raster order to RGB bytes. side: pixels along one side of the image."""
    return GraphContract(
        (TensorSpec("codes", "int64", ("M", d.tokens)),), (TensorSpec("pixels", "uint8", ("M", side, side, 3)),)
    )

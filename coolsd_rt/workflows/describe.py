"""From a spec and the headers of its weights to the engine's sizes: the description that everything after follows.

Knows specs and weights files' headers. Reads no tensor, and needs neither torch nor onnx.
"""

from __future__ import annotations

from coolsd_rt.backends.description import Description, dtype_of
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import UserError
from coolsd_rt.models.conditions import WordVocabulary
from coolsd_rt.models.header import read_config, size_of
from coolsd_rt.spec import LoadedSpec


def describe(loaded: LoadedSpec) -> Description:
    """The engine's sizes, from the headers of its weights.

    Raises UserError: files that are missing, broken, or not made for each other; a draft longer than the image.
    """
    names = ("target.weights", "draft.weights", "image.weights")
    paths = {key: loaded.files[key] for key in names if key in loaded.files}
    configs = {key: read_config(path) for key, path in paths.items()}

    def size(key: str, name: str) -> int:
        return size_of(paths[key], configs[key], name)

    def of(key: str) -> tuple[int, int, int]:
        dim, heads = size(key, "dim"), size(key, "heads")
        return dim, heads, dim // heads

    grid = size("target.weights", "grid")
    loaded.check_length(grid * grid)
    dim, heads, head_dim = of("target.weights")
    draft = "draft.weights" in configs
    draft_dim, draft_heads, draft_head_dim = of("draft.weights") if draft else (0, 0, 0)
    own = draft and loaded.spec.draft.model != "eagle"
    dims = ModelDims(
        vocab=size("target.weights", "vocab"),
        dim=dim,
        layers=size("target.weights", "layers"),
        heads=heads,
        head_dim=head_dim,
        prefix=size("target.weights", "prefix"),
        tokens=grid * grid,
        draft_layers=configs["draft.weights"].get("layers", 1) if draft else 0,
        draft_heads=draft_heads,
        draft_head_dim=draft_head_dim,
        draft_dim=draft_dim if own else 0,
    )
    vocabulary = WordVocabulary.load(loaded.files["condition.vocab"])
    _same(loaded, "condition.vocab", "words", len(vocabulary.words), size("target.weights", "words"))
    _same(loaded, "condition.vocab", "prefix", vocabulary.prefix, dims.prefix)
    _same(loaded, "image.weights", "codebook_size", size("image.weights", "codebook_size"), dims.vocab)
    if own:
        for name in ("vocab", "grid", "prefix", "words"):
            _same(loaded, "draft.weights", name, size("draft.weights", name), size("target.weights", name))
    elif draft:
        _same(loaded, "draft.weights", "dim", draft_dim, dims.dim)
    multipliers = configs["image.weights"].get("multipliers")
    if not isinstance(multipliers, list) or not multipliers:
        what = f"{paths['image.weights']}: config: multipliers"
        raise UserError(what, expected="a list of widths", found=repr(multipliers))
    engine = loaded.spec.engine
    fused = (
        engine.backend == "onnxruntime" and engine.device == "cpu"
    )  # elsewhere the draft's steps are ops of their own
    side, dtype = grid * 2 ** (len(multipliers) - 1), dtype_of(engine.precision, engine.device)
    return Description(dims, loaded.spec.draft.length, side, dtype, fused)


def _same(loaded: LoadedSpec, key: str, what: str, found: int, wanted: int) -> None:
    if found != wanted:
        fix = "name files that were trained together"
        raise loaded.error(key, f"{what} {wanted}, as the target has", f"{found} in {loaded.files[key]}", fix)

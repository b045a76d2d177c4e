"""From a spec and the headers of its weights to the engine's sizes: the description that everything after follows.

Knows specs and weights files' headers. Reads no tensor, and needs neither torch nor onnx.
"""

from __future__ import annotations

from coolsd_rt.backends.description import Description, dtype_of
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.models.config import DecoderConfig, EagleConfig
from coolsd_rt.models.families import check_draft_model, family_of, model_dims, read_eagle, read_target, read_tokenizer
from coolsd_rt.prompts import describe_condition
from coolsd_rt.spec import LoadedSpec

_KINDS = {"words": "words", "class": "class", "t5": "text", "tokens": "ids"}
"""Kind of a spec's condition to the prefix that a target of that kind reads."""


def describe(loaded: LoadedSpec) -> Description:
    """The engine's sizes, from the headers of its weights.

    Raises UserError: files that are missing, broken, or not made for each other; a draft longer than the image.
    """
    spec, files = loaded.spec, loaded.files
    target = read_target(files["target.weights"])
    _same(loaded, "target.model", "family", spec.target.model, family_of(target).name)
    loaded.check_length(target.tokens)
    draft: EagleConfig | DecoderConfig | None = None
    if "draft.weights" in files and spec.draft.model == "eagle":
        draft = read_eagle(files["draft.weights"])
        _same(loaded, "draft.weights", "dim", draft.dim, target.dim)
    elif "draft.weights" in files:
        own = draft = read_target(files["draft.weights"])
        check_draft_model(files["draft.weights"], own, target)
    _check_condition(loaded, target)
    image = read_tokenizer(files["image.weights"])
    _same(loaded, "image.weights", "codebook_size", image.codebook_size, target.layout.codes)
    engine, layout = spec.engine, target.layout
    side = layout.rows * image.downsampling
    for key in ("width", "height"):  # of a condition that tells the target its image's size
        if (pixels := getattr(spec.condition, key, None)) is not None:
            _same(loaded, f"condition.{key}", "pixels", pixels, side)
    made = Description(
        model_dims(target, draft),
        spec.draft.length,
        side,
        dtype_of(engine.precision, engine.device),
        # Elsewhere the draft's steps are operators of their own.
        propose=engine.backend == "onnxruntime" and engine.device == "cpu",
        forced=None if layout.plain else tuple(layout.forced.tolist()),
    )
    _check_sizes(loaded, made)
    return made


def _check_sizes(loaded: LoadedSpec, made: Description) -> None:
    """Raise UserError at sizes that an engine's manifest may not have: it would be built, and refused when opened."""
    try:
        Description.from_dict(made.as_dict(), str(loaded.path))
    except CoolsdError as error:
        fix = "name smaller models"
        raise UserError(error.what, expected=error.expected, found=error.found, fix=fix) from error


def _check_condition(loaded: LoadedSpec, target: DecoderConfig) -> None:
    """The spec's condition gives what the target's prefix is made of."""
    condition, (rows, width) = loaded.spec.condition, target.condition_size
    key = next((k for k in loaded.files if k.startswith("condition.")), "condition.kind")
    _same(loaded, "condition.kind", "prefix of", _KINDS[condition.kind], target.condition)
    facts = describe_condition(condition, loaded.files)
    _same(loaded, key, "prefix", facts.prefix, target.prefix)
    if facts.ids is not None:
        _same(loaded, key, "words" if condition.kind == "words" else "ids", facts.ids, rows)
    if facts.features_dim:
        _same(loaded, key, "features of width", facts.features_dim, width)


def _same(loaded: LoadedSpec, key: str, what: str, found: object, wanted: object) -> None:
    if found != wanted:
        where = f" in {loaded.files[key]}" if key in loaded.files else ""
        fix = "name files that were trained together"
        raise loaded.error(key, f"{what} {wanted}, as the target has", f"{found}{where}", fix)

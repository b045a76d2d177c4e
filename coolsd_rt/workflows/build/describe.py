"""Computes the sizes of an engine from a spec and the headers of its weights files.

Every later stage follows this description. Knows specs and the headers of weights files. Reads no tensor, and needs
neither torch nor onnx.
"""

from __future__ import annotations

from dataclasses import replace

from coolsd_rt.backends.description import Description, dtype_of
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.models.config import DecoderConfig, EagleConfig
from coolsd_rt.models.families import (
    check_draft_model,
    check_rows,
    family_of,
    model_dims,
    read_eagle,
    read_rows,
    read_target,
    read_tokenizer,
)
from coolsd_rt.models.row_config import RowConfig
from coolsd_rt.prompts import describe_condition
from coolsd_rt.shown import shorten
from coolsd_rt.spec import LoadedSpec

_KINDS = {"words": "words", "class": "class", "t5": "text", "tokens": "ids", "text": "ids"}
"""The spec's `condition.kind` to the kind of prefix in a target's header."""


def describe(loaded: LoadedSpec) -> Description:
    """Return the sizes of the engine, read from the headers of its weights files.

    Raises UserError if a file is missing or broken, if the files do not fit each other, or if the draft is longer than
    the image.
    """
    spec, files = loaded.spec, loaded.files
    target = read_target(files["target.weights"])
    _same(loaded, "target.model", "family", spec.target.model, family_of(target).name)
    loaded.check_length(target.tokens)
    draft: EagleConfig | RowConfig | DecoderConfig | None = None
    if "draft.weights" in files and spec.draft.model == "eagle":
        draft = read_eagle(files["draft.weights"])
        _same(loaded, "draft.weights", "dim", draft.dim, target.dim)
        _check_widths(loaded, draft.draft_vocab or target.layout.codes)
    elif "draft.weights" in files and spec.draft.model == "rows":
        rows = draft = read_rows(files["draft.weights"])
        check_rows(files["draft.weights"], rows, target)
        if spec.draft.length > rows.row:
            raise loaded.error("draft.length", f"at most the row's {rows.row} tokens", str(spec.draft.length))
    elif "draft.weights" in files:
        own = draft = read_target(files["draft.weights"])
        check_draft_model(files["draft.weights"], own, target)
    _check_condition(loaded, target)
    engine, layout = spec.engine, target.layout
    if spec.text is None:
        side = _side(loaded, target)
    else:
        side = 0
        _same(loaded, "text.length", "tokens", spec.text.length, target.tokens)
        if isinstance(draft, EagleConfig):  # the prefix of a text begins with its first word
            _same(loaded, "draft.weights", "sees_padding", draft.sees_padding, False)
    made = Description(
        replace(model_dims(target, draft), cut=int(engine.backend == "onnxruntime" and _shifts(loaded, target, draft))),
        spec.draft.length,
        side,
        dtype_of(engine.precision, engine.device),
        # Other backends run each draft step as a separate call.
        propose=engine.backend == "onnxruntime" and engine.device == "cpu" and spec.tree is None,
        forced=None if layout.plain else tuple(layout.forced.tolist()),
        tree=spec.tree is not None,
    )
    _check_sizes(loaded, made)
    return made


def _shifts(loaded: LoadedSpec, target: DecoderConfig, draft: EagleConfig | RowConfig | DecoderConfig | None) -> bool:
    """Return whether the loop begins behind the padding of all prompts, and no result depends on how much there is.

    It does for texts alone.
    """
    looks = isinstance(draft, EagleConfig) and draft.sees_padding
    return loaded.spec.text is not None and target.padded and target.rope.from_start and not looks


def _side(loaded: LoadedSpec, target: DecoderConfig) -> int:
    """Return the pixels along one side of an image. Raises UserError unless target and image tokenizer fit."""
    image = read_tokenizer(loaded.files["image.weights"])
    _same(loaded, "image.weights", "codebook_size", image.codebook_size, target.layout.codes)
    side = target.layout.rows * image.downsampling
    for key in ("width", "height"):  # only conditions that tell the target the image size have them
        if (pixels := getattr(loaded.spec.condition, key, None)) is not None:
            _same(loaded, f"condition.{key}", "pixels", pixels, side)
    return side


def _check_widths(loaded: LoadedSpec, codes: int) -> None:
    """Raise UserError for more siblings than there are tokens to draft: they all differ."""
    if (widest := max(loaded.spec.tree or (1,))) > codes:
        raise loaded.error("draft.tree", f"widths of at most the {codes} tokens that are drafted", str(widest))


def _check_sizes(loaded: LoadedSpec, made: Description) -> None:
    """Raise UserError for sizes that a manifest may not have.

    Otherwise the engine would be built and then refused when it is opened.
    """
    try:
        Description.from_dict(made.as_dict(), str(loaded.path))
    except CoolsdError as error:
        fix = "name smaller models"
        raise UserError(error.what, expected=error.expected, found=error.found, fix=fix) from error


def _check_condition(loaded: LoadedSpec, target: DecoderConfig) -> None:
    """Raise UserError unless the spec's condition produces the prefix that the target reads."""
    condition, (rows, width) = loaded.spec.condition, target.condition_size
    key = next((k for k in loaded.files if k.startswith("condition.")), "condition.kind")
    _same(loaded, "condition.kind", "prefix of", _KINDS[condition.kind], target.condition)
    ends = () if loaded.spec.text is None else loaded.spec.text.end
    facts = describe_condition(condition, loaded.files)
    if unknown := [token for token in ends if token not in facts.tokens]:
        fix = "name the end tokens of condition.tokenizer"
        raise loaded.error("text.end", "tokens of the tokenizer", f"'{shorten(unknown[0])}'", fix)
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

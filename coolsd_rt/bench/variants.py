"""The variants that `bench` times: by name, from the run-time values of the engine's spec.

Knows specs and laws. Does not know a clock, or how figures are shown.

- `lossless`: every omega is 1.
- `cool`: the paper's exponential schedule at each delta; nu and floor are the spec's, if its schedule is exponential.
- `uniform`, `linear`: these schedules at the first delta.
- `lantern++`, `lantern++-gstar`: LANTERN++ with its authors' residual, and with G*; factor and neighbours are the
  spec's, if its rule is lantern_pp.
- `jacobi`, `jacobi-coupled`, `jacobi-gumbel`: no draft model; drafts come from the target's distributions and are
  verified again each round.
- `ngram`: no draft model; what followed the last tokens the time before is proposed again.
- `spec`: the values of the spec, if none of the above has the same.
- `auto`: the law of the spec and, if that is another, every omega 1, under pacing `auto`.
- `synthetic`: replaces all others but `auto` if the spec's acceptance is synthetic.

The resampler is G* unless stated otherwise; sampling is the spec's. So are the thresholds of its pacing; all variants
but `auto` draft a fixed length otherwise, and drafts without a model have no thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import limits
from coolsd_rt.bench.timing import Variant
from coolsd_rt.errors import UserError
from coolsd_rt.runtime.drafter_names import WITHOUT_MODEL
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import Spec, with_draft_length, with_jacobi, with_ngram, with_overrides
from coolsd_rt.spec.fields import DraftLength, check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.workflows import drawing

PLAIN, SYNTHETIC, AUTO, NGRAM = "plain", "synthetic", "auto", "ngram"
LANTERN = ("lantern++", "lantern++-gstar")
JACOBI = {name.replace("_", "-"): coupling for coupling, name in drawing.COUPLINGS.items()}
NAMES = ("lossless", "cool", "uniform", "linear", *LANTERN, *JACOBI, NGRAM, "spec", AUTO)
"""Names that can be requested. Plain decoding is the baseline and is always timed."""

FACTOR, LENDERS = 2.0, 10  # LANTERN++'s values if the spec has another rule
NO_NEIGHBOURS = "the engine has no code neighbours; build it again with image.neighbours"
NO_CHAIN = "its rule judges a chain of drafts, and the spec drafts a tree"
_GSTAR = {"acceptance.rule": "ratio", "resampler.kind": "optimal"}
_LOSSLESS = _GSTAR | {"schedule.kind": "none"}
_OF_A_LENGTH = {key: key for key in ("schedule.values", "acceptance.rates")}  # draft.length entries; errors name them


@dataclass(frozen=True)
class VariantChoice:
    """What to time.

    names: empty: all.
    deltas: deltas of the variant `cool`; `uniform` and `linear` use the first.
    draft_lengths: empty: the built one.
    jacobi_length: draft length of Jacobi decoding; None: as in `generate`.
    """

    names: tuple[str, ...] = ()
    deltas: tuple[Annotated[float, Within(limits.OMEGA)], ...] = (1.1, 1.5, 2.0)
    draft_lengths: tuple[DraftLength, ...] = ()
    jacobi_length: DraftLength | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class VariantRow:
    """One row: the requested name (`cool`), and the variant."""

    kind: str
    variant: Variant

    @property
    def refines(self) -> bool:
        """Whether a run at one draft length says nothing of another.

        A Jacobi draft improves the longer it stays in the window, and a lookup may find fewer drafts than it may have.
        """
        return self.variant.settings.drafter in WITHOUT_MODEL


def lines(
    spec: Spec, engine: Engine, group: str, choice: VariantChoice, near: NDArray[np.int64] | None
) -> tuple[list[VariantRow], dict[str, str]]:
    """Return the variants, plain decoding first; and the names that this engine does not support, with the reason.

    near: the engine's neighbours, int64 [V, n], or None.

    Raises UserError: an unknown name, a delta or a length out of range, or nothing to compare plain decoding with.
    """
    asked, spec = _asked(choice), _with_fixed_drafts(spec)
    lengths = _lengths(spec, engine.dims.tokens, choice)
    out = [VariantRow(PLAIN, Variant(group, PLAIN, engine, drawing.settings_of(spec, plain=True)))]
    left: dict[str, str] = {}
    if spec.acceptance.rule == "synthetic":
        left = dict.fromkeys(asked, "acceptance is synthetic, the same under every rule and schedule")
        asked = (SYNTHETIC, *(name for name in asked if name == AUTO))
        left.pop(AUTO, None)
    elif near is None or spec.tree is not None:
        left = {name: NO_NEIGHBOURS if near is None else NO_CHAIN for name in asked if name in LANTERN}
        asked = tuple(name for name in asked if name not in LANTERN)
    for name in asked:
        if name in JACOBI:
            out.append(_jacobi(spec, engine, group, name, choice.jacobi_length))
            continue
        for length in lengths:
            mark = f", length {length}" if choice.draft_lengths else ""
            sized = with_draft_length(spec, length)
            for title, law in _laws(sized, name, asked, choice.deltas, near).items():
                try:
                    settings = drawing.settings_of(law, near)
                except UserError as error:
                    if name not in LANTERN:
                        raise
                    left[name] = str(error)  # the table has fewer neighbours than the spec asks for
                    continue
                out.append(VariantRow(name, Variant(group, title + mark, engine, settings)))
    if len(out) == 1:
        found = "; ".join(f"{name} is left out: {reason}" for name, reason in left.items())
        raise UserError("variants to time", expected="at least one beside plain decoding", found=found or "none")
    return out, left


def _asked(choice: VariantChoice) -> tuple[str, ...]:
    for name in choice.names:
        if name not in NAMES:
            raise UserError("--variant", expected=f"one of {', '.join(NAMES)}", found=name)
    if not choice.deltas:
        raise UserError("--delta", expected="at least one", found="none")
    return tuple(name for name in NAMES if not choice.names or name in choice.names)


def _lengths(spec: Spec, tokens: int, choice: VariantChoice) -> tuple[int, ...]:
    lengths = tuple(dict.fromkeys(choice.draft_lengths or (spec.draft.length,)))
    jacobi = () if choice.jacobi_length is None else (choice.jacobi_length,)
    for option, asked in (("--draft-length", lengths), ("--jacobi-length", jacobi)):
        for length in asked:
            if not 1 <= length <= tokens:
                raise UserError(option, expected=f"from 1 to the image's {tokens} tokens", found=str(length))
    return lengths


def _jacobi(spec: Spec, engine: Engine, group: str, name: str, length: int | None) -> VariantRow:
    length = length or max(1, min(drawing.JACOBI_WINDOW, engine.dims.tokens - 1))
    settings = drawing.settings_of(with_jacobi(with_overrides(spec, _LOSSLESS), length, JACOBI[name]))
    return VariantRow(name, Variant(group, name.replace("-", ", "), engine, settings))


def _laws(
    spec: Spec, name: str, asked: Sequence[str], deltas: Sequence[float], near: NDArray[np.int64] | None
) -> Mapping[str, Spec]:
    """Return titles and specs of one name; none for `spec` if another row has the same values."""
    if name == SYNTHETIC:
        return {"synthetic acceptance": with_overrides(spec, {}, _OF_A_LENGTH)}
    if name == AUTO:
        return _paced(with_overrides(spec, {"pacing.kind": "auto"}, _OF_A_LENGTH))
    if name == "spec":
        own = with_overrides(spec, {}, _OF_A_LENGTH)
        rows = (
            _laws(spec, other, asked, deltas, near) for other in asked if other not in ("spec", AUTO, *JACOBI, NGRAM)
        )
        same = any(own.run_view() == law.run_view() for row in rows for law in row.values())
        return {} if same else {"as the spec has it": own}
    if name == "lossless":
        return {name: with_overrides(spec, _LOSSLESS)}
    if name == NGRAM:
        lossless = with_overrides(spec, _LOSSLESS)
        return {name: with_ngram(lossless, spec.draft.length, _OF_A_LENGTH)}
    if name in LANTERN:
        return _lantern(spec, name, near)
    kind, word = ("exponential", "COOL-SD") if name == "cool" else (name, name)
    return {
        f"{word}, delta {delta:g}": with_overrides(spec, _GSTAR | {"schedule.kind": kind, "schedule.delta": delta})
        for delta in dict.fromkeys(deltas if name == "cool" else deltas[:1])
    }


def _with_fixed_drafts(spec: Spec) -> Spec:
    """The spec with a fixed draft length in place of pacing `auto`."""
    return with_overrides(spec, {"pacing.kind": "manual"}) if spec.pacing.kind == "auto" else spec


def _paced(spec: Spec) -> Mapping[str, Spec]:
    """The laws that are timed under pacing `auto`."""
    own = {"auto": spec}
    if spec.acceptance.rule == "synthetic" or spec.schedule.kind == "none":
        return own
    return {"auto, lossless": with_overrides(spec, _LOSSLESS), **own}


def _lantern(spec: Spec, name: str, near: NDArray[np.int64] | None) -> Mapping[str, Spec]:
    changes: dict[str, Any] = {"acceptance.rule": "lantern_pp"}
    if spec.acceptance.rule != "lantern_pp" and near is not None:
        codes, columns = near.shape
        both = (
            columns if columns == codes - 1 else columns - 1
        )  # the same number for both residuals; LANTERN's reads one more
        lenders = max(1, min(LENDERS, spec.neighbours, both))
        changes |= {"acceptance.factor": FACTOR, "acceptance.neighbours": lenders}
    title, kind = ("LANTERN++", "lantern") if name == LANTERN[0] else ("LANTERN++ with G*", "optimal")
    return {title: with_overrides(spec, changes | {"resampler.kind": kind})}

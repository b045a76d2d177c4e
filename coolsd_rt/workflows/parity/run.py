"""Verifies an engine against the eager PyTorch reference, and writes a receipt to the manifest.

    1. Find the weights that the engine was built from, and check their hashes against the manifest.
    2. Draw whole images on both sides from the same uniforms, the engine with the loop that `generate` takes. Measure
       each decision that differs.
    3. Step every graph along those images beside the reference. Measure logits and distributions.
    4. Step the engine over those images in wide steps, in steps of one position, and with one image alone. Measure
       whether the results are bitwise equal.
    5. Compare with the precision's thresholds, and write the receipt.

Knows thresholds. Needs the build extra (torch). Does not know ONNX.

Thresholds. fp32 equals the reference up to rounding: logits within 1e-3, or within 1e-5 of the largest where logits are
large (float32 has 7 digits); pixels within 1 of 255; 99% of images identical in every token; every difference explained
by probabilities that differ by at most 1e-3. int8 approximates the reference: the mean total variation of P is at most
0.05 (8-bit weights alone give 0.012-0.015 on random weights, before guidance amplifies it), and pixels differ by at
most 2 on average. For int8, identical images and the draft's distance are reported but not judged: Q may be any
distribution, because the law corrects for it. An engine that is built batch invariant must be batch invariant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coolsd_rt import cores, limits
from coolsd_rt.backends.tensorrt.package import require_gpu
from coolsd_rt.spec import with_overrides
from coolsd_rt.spec.engine import EngineOptions
from coolsd_rt.spec.networks import JacobiDraft
from coolsd_rt.store import tool_versions
from coolsd_rt.store.outputs import check_writable
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.parity.distance import Deviation, GraphParity
from coolsd_rt.workflows.parity.graphs import compare_graphs
from coolsd_rt.workflows.parity.images import ImageParity, compare_images
from coolsd_rt.workflows.parity.widths import WidthDependence, compare_widths
from coolsd_rt.workflows.texts import bounded

IMAGES = 32
# Parity tests the graphs, not the law, and near ties are measured by the margins of the ratio rule. So it uses that
# rule whatever the spec says, and drafts in every round.
USUAL: dict[str, Any] = {
    "acceptance.rule": "ratio", "resampler.kind": "optimal", "pacing.confidence": 0.0, "pacing.draft_confidence": 0.0,
}  # fmt: skip
TEXT_TOKENS = 128  # of a text, unless more are asked for: the reference writes each of them in eager PyTorch
_TOOLS = ("coolsd-rt", "numpy", "onnxruntime", "torch")


@dataclass(frozen=True)
class Thresholds:
    """Limits that a precision has to meet; None is not judged."""

    logit_error: float | None
    relative_logit_error: float | None  # relative to the largest logit; meeting either limit is enough
    identical_share: float | None
    decision_error: float | None
    mean_tv: float | None
    pixel_error: float
    pixel_error_is_mean: bool


THRESHOLDS = {
    "fp32": Thresholds(1e-3, 1e-5, 0.99, 1e-3, None, 1.0, False),
    # Products round to 11 (fp16) or 8 (bf16) bits, and CFG amplifies that. So distributions are judged, not tokens.
    "fp16": Thresholds(None, None, None, None, 0.02, 2.0, True),
    "bf16": Thresholds(None, None, None, None, 0.05, 2.0, True),
    "int8": Thresholds(None, None, None, None, 0.05, 2.0, True),
}


@dataclass(frozen=True)
class ParityCallbacks:
    """Callbacks that report progress."""

    images: Callable[[int], None] = lambda done: None  # images drawn on both sides so far


@dataclass(frozen=True)
class Parity:
    """The outcome of a comparison. `failures` has one line for each threshold that was missed.

    tokens: of each text; None: images.
    """

    precision: str
    graphs: GraphParity
    images: ImageParity
    widths: WidthDependence
    failures: tuple[str, ...]
    threads: int = 1  # CPU threads of the engine
    tokens: int | None = None

    @property
    def passed(self) -> bool:
        """Whether every threshold was met."""
        return not self.failures

    @property
    def compared(self) -> Literal["images", "texts"]:
        """What the engine writes."""
        return "images" if self.tokens is None else "texts"

    def receipt(self) -> dict[str, Any]:
        """Return JSON data for the manifest and for `parity --json`. What was compared is `images`, or `texts`."""
        p, compared = self.images, self.compared
        return {
            "passed": self.passed,
            "precision": self.precision,
            "max_logit_error": _number(self.graphs.target.largest),
            "loop": p.loop,
            compared: p.images,
            **({} if self.tokens is None else {"tokens_each": self.tokens}),
            "identical": p.identical,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "failures": list(self.failures),
            "graphs": _number(self.graphs.as_dict()),
            f"whole_{compared}": _number(p.as_dict(compared)),
            "batch_invariance": _number(self.widths.as_dict()),
            "threads": self.threads,
            "thresholds": asdict(THRESHOLDS[self.precision]),
            "tools": tool_versions(_TOOLS),
        }


def parity(
    engine: str | Path | OpenedEngine,
    *,
    images: int = IMAGES,
    max_tokens: int | None = None,
    prompts: Sequence[str] = (),
    seed: int = 0,
    spec_file: Path | None = None,
    threads: int | None = None,
    listener: ParityCallbacks | None = None,
) -> Parity:
    """Compare an engine with the reference on `images` whole images, and write the receipt.

    A GPU engine that passes becomes the engine that its pipeline's name points to.

    engine: opened, or where it is. max_tokens: of texts, which are written so long whatever end tokens come; default:
    `TEXT_TOKENS`, or the engine's.
    prompts: repeated until there are enough images; empty: `opening.default_prompts`. spec_file, threads: as in
    `OpenedEngine`; of an opened engine they are what it was opened with.

    Raises:
        UserError: no engine, other weights than it was built from, or a bad prompt or number; max_tokens for images.
        MissingExtra: torch is not installed.
        CoolsdError: the engine is broken.
    """
    listener = listener or ParityCallbacks()
    images, seed = limits.IMAGES.check("images", images), limits.SEED.check("seed", seed)
    opened = engine if isinstance(engine, OpenedEngine) else OpenedEngine.at(engine, None, threads, spec_file)
    count = cores.threads_for(opened.threads)
    check_writable(opened.folder.folder)  # fail now rather than after an hour of comparing
    loaded, spec = opened.find_spec(), opened.spec
    cuda = spec.engine.device == "cuda"
    if cuda:
        require_gpu(what="proving an engine for a GPU")
    reference = opening.open_reference(loaded, opened.threads, spec.engine.device)
    conditioner, tested = opened.conditioner, opened.engine
    # Jacobi drafts come from the target's distributions, so only the target has to be verified.
    plain = isinstance(spec.draft, JacobiDraft)
    settings = opened.settings(with_overrides(spec, USUAL), plain=plain)
    # A chain of drafts, also where the spec has a tree: its steps go through the same graphs.
    settings = _endless(opened, replace(settings, tree=None), max_tokens)
    texts = prompts or opening.default_prompts(loaded, conditioner)
    jobs = drawing.spread_jobs(texts, images, seed, conditioner)
    whole = ImageParity()
    listener.images(0)
    for batch in drawing.batches(jobs, spec.engine.max_batch):
        compare_images(tested, reference, batch, conditioner, settings, whole)
        listener.images(whole.images)
    first, pixels = jobs[: len(whole.codes[0])], spec.writes == "image"
    graphs = compare_graphs(tested, reference, first, conditioner, settings, whole.codes[0], pixels)
    widths = compare_widths(tested, first, conditioner, settings, whole.codes[0])
    failures = (*judge(spec.engine.precision, graphs, whole), *_judge_widths(spec.engine, widths))
    tokens = None if settings.bounds is None else settings.bounds.limit
    outcome = Parity(spec.engine.precision, graphs, whole, widths, failures, count, tokens)
    proven = opened.folder.with_receipt(outcome.receipt())
    if outcome.passed and cuda:  # its promotion waited for parity
        proven.make_current()
    return outcome


def _endless(opened: OpenedEngine, settings: Settings, max_tokens: int | None) -> Settings:
    """Return the settings, for texts of one length, as images have it. Raises UserError for images with a length."""
    if opened.spec.writes == "image" and max_tokens is None:
        return settings
    tokens = min(TEXT_TOKENS, opened.description.dims.tokens) if max_tokens is None else max_tokens
    limit = bounded(opened, settings, tokens).bounds
    return replace(settings, bounds=limit and replace(limit, ends=()))


def judge(precision: str, graphs: GraphParity, whole: ImageParity) -> tuple[str, ...]:
    """Return one line for each threshold that was missed."""
    t = THRESHOLDS[precision]
    image = graphs.image.as_dict()["mean_error" if t.pixel_error_is_mean else "max_error"]
    share = whole.identical / whole.images
    checks = [
        ("pixels", t.pixel_error, image),
        ("mean total variation of P", t.mean_tv, graphs.p.as_dict()["mean_tv"]),
        ("probability error where tokens part", t.decision_error, whole.largest_error),
    ]
    sides = (("target", graphs.target), ("draft", graphs.draft))
    lines = [line for name, found in sides if (line := _logits(t, name, found))]
    lines += [
        f"{what}: expected at most {limit:g}, found {found:.3g}"
        for what, limit, found in checks
        if limit is not None and not found <= limit
    ]
    if t.identical_share is not None and share < t.identical_share:
        lines.append(f"identical images: expected at least {t.identical_share:.0%}, found {share:.1%}")
    if t.decision_error is not None and whole.unexplained:
        lines.append(f"differences: expected each explained, found {whole.unexplained} that is not")
    return tuple(lines)


def _judge_widths(engine: EngineOptions, found: WidthDependence) -> tuple[str, ...]:
    """Return one line if an engine that was built batch invariant is not batch invariant on this machine."""
    if not engine.invariant or found.exact:
        return ()
    by = f"logits that move by {max(found.width, found.mates):.2g}"
    fix = "this processor's kernels round differently; build with engine.batch_invariant: false"
    return (f"batch invariance: expected the same bits in any step, found {by}; {fix}",)


def _logits(t: Thresholds, name: str, found: Deviation) -> str:
    """Return an error message about a graph's logits; empty if they are within the thresholds."""
    if t.logit_error is None or t.relative_logit_error is None:
        return ""
    relative = found.as_dict()["relative_error"]
    if found.largest < t.logit_error or relative < t.relative_logit_error:
        return ""
    expected = f"under {t.logit_error:g}, or {t.relative_logit_error:g} of the largest"
    return f"logits of the {name}: expected {expected}, found {found.largest:.3g}, {relative:.2g} of it"


def _number(value: Any) -> Any:
    """Replace infinity and NaN, which JSON does not have, by a word."""
    if isinstance(value, dict):
        return {k: _number(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_number(v) for v in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value

"""The spec's keys, types, ranges and defaults. The field descriptions are the reference documentation.

Knows one spec on its own. Does not know YAML, line numbers, folders, or whether a file exists.
Only what works today is accepted: an option that is planned is an unknown word.
"""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

RUN_TIME = ("schedule", "resampler", "acceptance", "sampling", "pacing")
"""Sections that are values of a generation: changing them rebuilds nothing."""

BUILD_TIME = ("target", "draft", "image", "condition", "engine")
"""Sections that are compiled into an engine: changing them changes its fingerprint."""

FILE_KEYS = ("target.weights", "draft.weights", "image.weights", "condition.vocab")
"""Keys that name files. A build depends on the files' contents, never on their names."""


def complaint(expected: str, found: str, fix: str = "") -> PydanticCustomError:
    """A validation error with its two sides apart, so that every message can be set the same way."""
    # The text goes through the context: a template would read braces in it as fields.
    return PydanticCustomError("spec", "{text}", {"text": expected, "expected": expected, "found": found, "fix": fix})


def _relative(value: str) -> str:
    path = PurePosixPath(value)
    if not value.strip() or "\0" in value:
        raise complaint("a file name", repr(value))
    if path.is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~"):
        raise complaint("a path relative to the spec's folder", value, "put the file beside the spec")
    if ".." in path.parts or "\\" in value:
        raise complaint("a path inside the spec's folder, with / between names", value)
    return value


def _whole(value: Any) -> Any:
    """True == 1 == 1.0 in Python, and a literal compares."""
    if value == 1 and type(value) is not int:
        raise complaint("1", str(value).lower())
    return value


RelativePath = Annotated[str, AfterValidator(_relative)]
Delta = Annotated[
    float,
    Field(
        ge=0,
        le=1e6,
        description="Budget: the mean of omega over the draft's positions, before the floor. 1 is lossless on average "
        "only; above 1 accepts more and drifts more. Finite, >= 0.",
    ),
]
_FLOOR = "Least omega of any position. 1.0 costs no quality and accepts more; null is the schedule as it is."
OptionalFloor = Annotated[float, Field(ge=0)] | None


class Section(BaseModel):
    """Closed, immutable and literal-minded: "4" is not 4, and NaN is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Target(Section):
    """The model whose distribution is wanted."""

    model: Literal["llamagen"] = Field(description="Architecture of the target.")
    weights: RelativePath = Field(description="Its safetensors file, relative to the spec's folder.")


_WEIGHTS = "Its safetensors file, relative to the spec's folder."
DraftLength = Annotated[
    int, Field(ge=1, description="Tokens proposed in a round (L). At least 1, at most the image's tokens. Build-time.")
]


class EagleDraft(Section):
    """An EAGLE head on the target's features proposes tokens."""

    model: Literal["eagle"]
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength


class ModelDraft(Section):
    """A small model of its own proposes tokens: another LlamaGen with the same words, codes and picture."""

    model: Literal["llamagen"]
    weights: RelativePath = Field(description=_WEIGHTS)
    length: DraftLength


class JacobiDraft(Section):
    """No draft model: the target's own distributions of the last round propose tokens (speculative Jacobi decoding)."""

    model: Literal["jacobi"]
    length: DraftLength
    coupled: bool = Field(
        default=False, description="Pass drafts on by a maximal coupling instead of drawing them again. Run-time."
    )


Draft = Annotated[EagleDraft | ModelDraft | JacobiDraft, Field(discriminator="model")]


class Image(Section):
    """The tokenizer that turns code ids into pixels."""

    tokenizer: Literal["vq"] = Field(description="Kind of image tokenizer.")
    weights: RelativePath = Field(description="Its safetensors file, relative to the spec's folder.")
    neighbours: int = Field(
        default=64, ge=1, description="Nearest codes kept of each code, for the lantern rules. Build-time."
    )


class Condition(Section):
    """How a prompt becomes the prefix that the target reads."""

    kind: Literal["words"] = Field(description="`words`: one embedding a word, from a closed vocabulary.")
    vocab: RelativePath = Field(description="JSON file of the vocabulary, relative to the spec's folder.")


class Exponential(Section):
    """The paper's annealed schedule: omega_i = delta * exp(-nu * i - mu), with mean delta."""

    kind: Literal["exponential"]
    delta: Delta
    nu: float = Field(default=0.7, ge=0, description="Decay per position. 0 is uniform; the paper uses 0.7.")
    floor: OptionalFloor = Field(default=1.0, description=f"{_FLOOR} null is the paper's own.")


class Linear(Section):
    """omega falls on a straight line, with mean delta."""

    kind: Literal["linear"]
    delta: Delta
    floor: OptionalFloor = Field(default=1.0, description=_FLOOR)


class Uniform(Section):
    """omega_i = delta at every position (the paper's UniformRSD)."""

    kind: Literal["uniform"]
    delta: Delta
    floor: OptionalFloor = Field(default=None, description=_FLOOR)


class Excess(Section):
    """omega_i = 1 + beta * exp(-nu * (i - 1)): never under 1, and both uniform and annealed schedules are near it."""

    kind: Literal["excess"]
    beta: float = Field(ge=0, le=1e6, description="What the first omega has above 1. 0 is lossless. Finite, >= 0.")
    nu: float = Field(default=0.7, ge=0, description="Decay per position of what is above 1. 0 is uniform.")


class NoRelaxation(Section):
    """omega_i = 1: classic speculative decoding, lossless."""

    kind: Literal["none"]


class Custom(Section):
    """omega as given, one value a draft position."""

    kind: Literal["custom"]
    values: Annotated[tuple[Annotated[float, Strict(), Field(ge=0)], ...], Strict(False)] = Field(
        min_length=1, description="omega_1..omega_L, as many as draft.length. Finite, >= 0."
    )
    floor: OptionalFloor = Field(default=None, description=_FLOOR)


Schedule = Annotated[Exponential | Linear | Uniform | Excess | NoRelaxation | Custom, Field(discriminator="kind")]


class Resampler(Section):
    """What is drawn after a rejection."""

    kind: Literal["optimal", "waterfill", "residual", "lantern", "target"] = Field(
        default="optimal",
        description="`optimal`: G* = Norm([P - min(Q, omega P)]+), exact where omega <= 1. `waterfill`: the same "
        "acceptance and the same distance to P, with the least KL. `residual` (the classic Norm([P - Q]+)) and "
        "`target` (P itself) are biased where omega < 1 and exist for comparison, as does `lantern`, LANTERN's own. "
        "The rule synthetic ignores it and draws from P.",
    )


Neighbours = Annotated[
    int, Field(ge=1, description="How many of the nearest codes may lend (k); at most image.neighbours.")
]


class Ratio(Section):
    """Accept with min(1, omega P(x) / Q(x)), the paper's rule."""

    rule: Literal["ratio"]


class Lantern(Section):
    """LANTERN: accept with min(1, (P(x) + c(x)) / Q(x)), c borrowed from the codes nearest to x. With schedule none."""

    rule: Literal["lantern"]
    bound: float = Field(ge=0, le=1, description="Most probability that a token may borrow: c(x) <= bound.")
    neighbours: Neighbours


class LanternPP(Section):
    """LANTERN++: as LANTERN, but what a token may borrow is a multiple of its own probability. With schedule none."""

    rule: Literal["lantern_pp"]
    factor: float = Field(ge=1, le=1e6, description="c(x) <= (factor - 1) P(x). 1 is lossless.")
    neighbours: Neighbours


class Synthetic(Section):
    """Accept at fixed rates whatever the models say: for timing without trained weights. With schedule none."""

    rule: Literal["synthetic"]
    rates: Annotated[tuple[Annotated[float, Strict(), Field(ge=0, le=1)], ...], Strict(False)] = Field(
        min_length=1, description="Acceptance rate of each draft position, as many as draft.length."
    )


Acceptance = Annotated[Ratio | Lantern | LanternPP | Synthetic, Field(discriminator="rule")]


class Sampling(Section):
    """Logit processing, the same for P and Q: CFG, temperature, top-k, top-p, softmax."""

    cfg_scale: float = Field(
        default=1.0,
        ge=1,
        le=1e3,
        description="Classifier-free guidance: uncond + scale * (cond - uncond). 1 is no guidance; LlamaGen guides "
        "only above 1, so smaller values are refused rather than ignored.",
    )
    temperature: float = Field(default=1.0, gt=0, le=1e6, description="Divides the logits.")
    top_k: int = Field(default=0, ge=0, description="Keep the k most probable tokens, ties included; 0 keeps all.")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Keep the smallest set of tokens with this mass; 1 keeps all."
    )


class Pacing(Section):
    """When a round drafts at all. Changes the speed, never the law of the output."""

    confidence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Draft only where the target gave its last token's likeliest code at least this probability: where "
        "it is unsure the draft is mostly rejected. 0 always drafts.",
    )
    draft_confidence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="End a round's drafts before the first one to whose likeliest code the draft gives less than this "
        "probability: the target is then stepped over fewer positions. 0 never ends them.",
    )


RUNNABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("onnxruntime", "cpu"): ("fp32", "int8"),  # its CPU provider has no bf16, and casts its way through fp16
    ("onnxruntime", "cuda"): ("fp32", "fp16"),
    ("torch", "cpu"): ("fp32", "bf16"),
    ("torch", "cuda"): ("fp32", "fp16", "bf16"),
    ("tensorrt", "cuda"): ("fp32", "fp16", "bf16", "int8"),
    ("tensorrt-rtx", "cuda"): ("fp32", "fp16", "bf16", "int8"),
}
"""(backend, device) to the precisions it runs."""


class EngineOptions(Section):
    """What the models are compiled to."""

    backend: Literal["onnxruntime", "torch", "tensorrt", "tensorrt-rtx"] = Field(
        default="onnxruntime",
        description="What runs the models. `torch`: the networks themselves. `tensorrt` and `tensorrt-rtx` need a GPU to "
        "run.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="Where. Left out, it is `cuda` for TensorRT and `cpu` for the others."
    )
    precision: Literal["fp32", "fp16", "bf16", "int8"] = Field(
        default="fp32",
        description="Of weights, arithmetic and KV cache; logits are float32 at any. `int8` stores weights in 8 bits by "
        "blocks, with float32 arithmetic on a CPU and fp16 on a GPU.",
    )
    max_batch: int = Field(default=4, ge=1, le=4096, description="Most images drawn at once; more prompts go in turns.")


    @model_validator(mode="before")
    @classmethod
    def _device_of_the_backend(cls, data: Any) -> Any:
        if isinstance(data, dict) and "device" not in data and str(data.get("backend", "")).startswith("tensorrt"):
            return {**data, "device": "cuda"}
        return data

    @model_validator(mode="after")
    def _parts_that_run(self) -> EngineOptions:
        here = RUNNABLE.get((self.backend, self.device))
        if here is None:
            found = f"device {self.device}"
            raise complaint(f"the device cuda for the backend {self.backend}", found, "set engine.device: cuda")
        if self.precision not in here:
            expected = f"one of {', '.join(here)} for {self.backend} on {self.device}"
            raise complaint(expected, f"precision {self.precision}")
        return self


def _refuse(loc: tuple[str, ...], value: Any, expected: str, found: str) -> None:
    error = InitErrorDetails(type=complaint(expected, found), loc=loc, input=value)
    raise ValidationError.from_exception_data("Spec", [error])


def _one_a_position(loc: tuple[str, ...], values: tuple[float, ...], length: int) -> None:
    if len(values) != length:
        _refuse(loc, values, f"{length} values, one a draft position (draft.length)", str(len(values)))


class Spec(Section):
    """A pipeline from a prompt to a picture."""

    version: Annotated[Literal[1], BeforeValidator(_whole)] = Field(description="Version of this format.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="Name of the engine's folder: lower-case letters, digits, - and _, at most 64.",
    )
    target: Target
    draft: Draft
    image: Image
    condition: Condition
    schedule: Schedule = Field(description="omega, the relaxation of each draft position. Run-time.")
    resampler: Resampler = Field(default=Resampler(), description="Run-time.")
    acceptance: Acceptance = Field(default=Ratio(rule="ratio"), description="When a drafted token is kept. Run-time.")
    sampling: Sampling = Field(default=Sampling(), description="Run-time.")
    pacing: Pacing = Field(default=Pacing(), description="Run-time.")
    engine: EngineOptions = Field(default=EngineOptions())

    @model_validator(mode="after")
    def _parts_that_fit(self) -> Spec:
        length, rule, kind = self.draft.length, self.acceptance.rule, self.schedule.kind
        if isinstance(self.schedule, Custom):
            _one_a_position(("schedule", "custom", "values"), self.schedule.values, length)
        if isinstance(self.acceptance, Synthetic):
            _one_a_position(("acceptance", "synthetic", "rates"), self.acceptance.rates, length)
        if rule != "ratio" and kind != "none":
            found = f"the schedule {kind}"
            _refuse(("acceptance", rule, "rule"), rule, "the schedule none: this rule has its own relaxation", found)
        if isinstance(self.acceptance, Lantern | LanternPP) and self.acceptance.neighbours > self.image.neighbours:
            loc = ("acceptance", rule, "neighbours")
            k = self.acceptance.neighbours
            _refuse(loc, k, f"at most the {self.image.neighbours} that are built in (image.neighbours)", str(k))
        if self.resampler.kind == "lantern" and not isinstance(self.acceptance, Lantern | LanternPP):
            _refuse(("resampler", "kind"), "lantern", "the rule lantern or lantern_pp with it", f"the rule {rule}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults included, as JSON data. `Spec.model_validate` takes it back."""
        return self.model_dump(mode="json")

    def build_view(self) -> dict[str, Any]:
        """What an engine's fingerprint depends on, without file names (their contents are hashed instead)."""
        view = self.model_dump(mode="json", include=set(BUILD_TIME))
        for key in FILE_KEYS:
            section, field = key.split(".")
            view[section].pop(field, None)
        view["draft"].pop("coupled", None)
        return view

    def run_view(self) -> dict[str, Any]:
        """The values of a generation: what can change without a build."""
        return self.model_dump(mode="json", include=set(RUN_TIME))

    def file_names(self) -> dict[str, str]:
        """Key (`target.weights`) to the relative path it holds, in the order of `FILE_KEYS`, of those it has."""
        full = self.resolved()
        parts = [(key, *key.split(".")) for key in FILE_KEYS]
        return {key: full[section][field] for key, section, field in parts if field in full[section]}

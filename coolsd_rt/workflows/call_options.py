"""Checks the keyword arguments of a `coolsd_rt.Pipeline` call and converts them to the run-time values of a request.

Knows the argument names of the Python API and their equivalents in other libraries. Does not know engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.prompts.base import some_text
from coolsd_rt.runtime.self_decoding import Loop
from coolsd_rt.shown import shown
from coolsd_rt.spec.fields import DraftLength, Flag, Images, Seed, TextTokens, check_fields
from coolsd_rt.spec.law import (
    Custom,
    Excess,
    Exponential,
    Lantern,
    LanternPP,
    Linear,
    Pacing,
    RatioRule,
    Synthetic,
    Uniform,
)
from coolsd_rt.spec.messages import suggestion
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Asked


class DrawOptions(TypedDict, total=False):
    """Keyword arguments of `Pipeline.__call__` and `Pipeline.stream`. The value None is the same as leaving the
    argument out.

    images_per_prompt, num_images_per_prompt: number of images per prompt, 1 to 100000; two names of one option. Default
    1.
    seed: image i of every prompt (i from 0) uses seed + i, modulo 2^64. Default 0.
    seeds: one seed per image instead of `seed`; its length is prompts x images per prompt.
    guidance_scale: scale of classifier-free guidance, at least 1; 1 disables guidance.
    cfg_interval: last decode step with guidance; -1 guides all steps.
    temperature, top_k, top_p: processing of logits, the same for target and draft.
    schedule: relaxation: a kind, or keys of the spec's `schedule`, such as {"delta": 1.1}. "none" is lossless with the
        acceptance "ratio" and the resampler "optimal", "waterfill" or "residual".
    acceptance: a rule, or keys of the spec's `acceptance`.
    resampler: a kind, or {"kind": ...}.
    pacing: a kind ("auto" or "manual"), or keys of the spec's `pacing`.
    draft_length: tokens drafted per round; a length other than the built one runs each draft step separately.
    plain: decode without a draft.
    draft: "jacobi", "jacobi-coupled" or "jacobi-gumbel": take drafts from the target's last round instead of the built
        draft; "ngram": what followed the last tokens the time before.
    max_tokens: texts only: most tokens of a text. Default: the engine's `text.length`.
    system: texts only: message of the system before each prompt.
    raw: texts only: True continues a prompt as it is, without the chat template.
    loop: "auto" runs the device's loop if it has one, else the host's; "host" and "device" select one. Default "auto".
    """

    images_per_prompt: int | None
    num_images_per_prompt: int | None
    seed: int | None
    seeds: Sequence[int] | None
    guidance_scale: float | None
    cfg_interval: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    schedule: str | Mapping[str, Any] | None
    acceptance: str | Mapping[str, Any] | None
    resampler: str | Mapping[str, Any] | None
    pacing: str | Mapping[str, Any] | None
    draft_length: int | None
    plain: bool | None
    draft: Literal["jacobi", "jacobi-coupled", "jacobi-gumbel", "ngram"] | None
    max_tokens: int | None
    system: str | None
    raw: bool | None
    loop: Loop | None


_SAMPLING = {
    "guidance_scale": "sampling.cfg_scale",
    "cfg_interval": "sampling.cfg_interval",
    "temperature": "sampling.temperature",
    "top_k": "sampling.top_k",
    "top_p": "sampling.top_p",
}
_AS_THEY_ARE = ("images_per_prompt", "seed", "draft_length", "plain", "draft", "max_tokens", "system", "raw", "loop")
SECTIONS = {"schedule": "kind", "acceptance": "rule", "resampler": "kind", "pacing": "kind"}
"""Options that are a kind, or keys of the spec's section; and the key that a text alone sets."""
_FIELDS = {
    "schedule": (Exponential, Linear, Uniform, Excess, Custom),
    "acceptance": (RatioRule, Lantern, LanternPP, Synthetic),
    "pacing": (Pacing,),
}
_NAMES = {
    **{key: name for name, key in _SAMPLING.items()},
    **{f"{s}.{f}": f"{s}['{f}']" for s, kinds in _FIELDS.items() for kind in kinds for f in kind.model_fields},
    "resampler.kind": "resampler",
    "draft.length": "draft_length",
}
"""Spec keys to the argument that sets them, for error messages."""

_SIZE = "the size of the images is built into the engine"
_ELSEWHERE = {
    "num_inference_steps": "there are no denoising steps: each image takes one token per cell of its grid",
    "generator": "give seed=, or seeds= with one for each image",
    "cfg_scale": "the option is named guidance_scale",
    "cfg": "the option is named guidance_scale",
    "n": "the option is named images_per_prompt",
    "delta": 'give it with the schedule: schedule={"delta": ...}',
    "rule": 'give it with the acceptance: acceptance={"rule": ...}',
    "confidence": 'give it with the pacing: pacing={"confidence": ...}',
    "prompt": "give the prompts as the first argument",
    "negative_prompt": "guidance subtracts the model's own unconditional row",
    "height": _SIZE,
    "width": _SIZE,
    "output_type": "images are PIL's; numpy.asarray(image) is the array",
    "return_dict": "the result is always a PipelineOutput",
    "callback": "it is called callback_on_step_end here",
    "callback_on_step_end_tensor_inputs": "the callback gets the batch's progress, whose codes() are the tokens",
    "sampling_params": "give its values by name: temperature, top_k, top_p, seed",
}
"""Argument names of other libraries and of the command line, with the `DrawOptions` name to use instead."""


@dataclass(frozen=True)
class Call:
    """The checked arguments of one call. Implements `Values` of `workflows.prepared`.

    Values that depend on the engine are checked later. overrides: spec keys and their values.
    """

    prompts: tuple[str, ...]
    images_per_prompt: Images = 1
    seed: Seed = 0
    seeds: tuple[Seed, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    draft_length: DraftLength | None = None
    plain: Flag = False
    draft: str | None = None
    max_tokens: TextTokens | None = None
    system: str | None = None
    raw: Flag = False
    loop: Loop = "auto"

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def of(prompts: object, options: Mapping[str, Any], more: Iterable[str] = ()) -> Call:
        """Read the arguments of a call. more: argument names that this call takes besides those of `DrawOptions`.

        Raises UserError if there is no prompt, or if an argument has an unknown name, a wrong type, a value out of
        range, or excludes another argument.
        """
        check_names(options, [*DrawOptions.__annotations__, *more])
        given = {name: value for name, value in options.items() if value is not None}
        _exclude(given, "images_per_prompt", "num_images_per_prompt")
        _exclude(given, "seed", "seeds")
        if isinstance(seed := given.get("seed"), list | tuple):
            fix = "give a seed for each image as seeds="
            raise UserError("seed", expected="one whole number", found=shown(seed), fix=fix)
        direct: dict[str, Any] = {name: given[name] for name in _AS_THEY_ARE if name in given}
        if "num_images_per_prompt" in given:
            direct["images_per_prompt"] = given["num_images_per_prompt"]
        if "seeds" in given:
            direct["seeds"] = _listed("seeds", given["seeds"], "a list of whole numbers")
        return Call(_prompts(prompts), overrides=_overrides(given), **direct)

    @property
    def names(self) -> dict[str, str]:
        """What the user typed for each spec key."""
        typed = {key: "{}['{}']".format(*key.split(".")) for key in self.overrides}
        return {**typed, **_NAMES}

    @property
    def text_options(self) -> dict[str, Any]:
        """The options of texts that were given."""
        given = {"max_tokens": self.max_tokens, "system": self.system, "raw": self.raw or None}
        return {name: value for name, value in given.items() if value is not None}

    def asked(self, read: Callable[[str], str] = some_text) -> list[Asked]:
        """Return every image, in the order of the prompts. read: checks a prompt.

        Raises UserError for an empty or overlong prompt or a wrong number of seeds.
        """
        every = drawing.asked(self.prompts, self.images_per_prompt, self.seed, read=read)
        if self.seeds is None:
            return every
        if len(self.seeds) != len(every):
            raise UserError("seeds", expected=f"{len(every)}, one for each image", found=str(len(self.seeds)))
        return [Asked(one.index, one.prompt, seed) for one, seed in zip(every, self.seeds, strict=True)]


def check_names(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise UserError for the first name that is not an option of a call."""
    for name in options:
        if name not in known:
            fix = _ELSEWHERE.get(name) or suggestion(name, list(known)) or f"there are: {', '.join(known)}"
            raise UserError(name, expected="an option of this call", found="an unknown name", fix=fix)


def _exclude(given: Mapping[str, Any], first: str, second: str) -> None:
    if first in given and second in given:
        raise UserError(second, expected=f"{first} or {second}", found="both", fix="drop one")


def _listed(name: str, value: Any, expected: str) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise UserError(name, expected=expected, found=shown(value))
    return tuple(value)


def _prompts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    texts = _listed("prompts", value, "a text or a list of texts")
    if not texts:
        raise UserError("prompts", expected="at least one", found="none")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"prompts[{place}]", expected="a text", found=shown(text))
    return texts


def _overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values by argument name to values by spec key."""
    out = {key: given[name] for name, key in _SAMPLING.items() if name in given}
    for section, tag in SECTIONS.items():
        value = given.get(section)
        if isinstance(value, str) and tag:
            out[f"{section}.{tag}"] = value
        elif isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or not key.isidentifier():
                    raise UserError(section, expected="keys of the spec's section", found=shown(key))
            out |= {f"{section}.{key}": part for key, part in value.items()}
        elif value is not None:
            expected = f"a {tag} or a mapping" if tag else "a mapping"
            raise UserError(section, expected=expected, found=shown(value))
    return out


def check_count(name: str, value: object) -> int:
    """Check a number of partial images, 0 to `limits.PARTIAL_IMAGES.high`. Raises UserError."""
    return int(limits.PARTIAL_IMAGES.check(name, value))


def check_callable(name: str, value: object) -> None:
    """Raise UserError unless `value` is callable or None."""
    if value is not None and not callable(value):
        raise UserError(name, expected="a function", found=shown(value))

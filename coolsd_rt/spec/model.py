"""The spec's keys, types, ranges and defaults. The field descriptions are the reference documentation.

Knows a spec's values. Does not know YAML, line numbers, folders, or whether a file exists. Accepts only implemented
options.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from coolsd_rt import limits
from coolsd_rt.spec.condition import Condition
from coolsd_rt.spec.engine import EngineOptions
from coolsd_rt.spec.law import (
    Acceptance,
    Custom,
    Lantern,
    LanternPP,
    Pacing,
    RatioRule,
    Resampler,
    SamplingSection,
    Schedule,
    Synthetic,
)
from coolsd_rt.spec.networks import Draft, EagleDraft, Image, NgramDraft, Target, Text
from coolsd_rt.spec.origins import OriginsSection
from coolsd_rt.spec.section import Section, complaint

RUN_TIME = ("schedule", "resampler", "acceptance", "sampling", "pacing")
"""Run-time sections: changing them rebuilds nothing."""

BUILD_TIME = ("target", "draft", "image", "text", "condition", "engine")
"""Build-time sections, which are compiled into an engine: changing them changes its fingerprint."""

FILE_KEYS = (
    "target.weights", "draft.weights", "image.weights", "condition.vocab", "condition.labels", "condition.features",
    "condition.tokenizer", "condition.chat_template",
)  # fmt: skip
"""Keys that name files. A build depends on the contents of the files, not on their names."""


def _whole(value: Any) -> Any:
    """Refuse True and 1.0, which equal 1 in Python."""
    if value == 1 and type(value) is not int:
        raise complaint("1", str(value).lower())
    return value


def _refuse(loc: tuple[str, ...], value: Any, expected: str, found: str) -> None:
    error = InitErrorDetails(type=complaint(expected, found), loc=loc, input=value)
    raise ValidationError.from_exception_data("Spec", [error])


def _one_a_position(loc: tuple[str, ...], values: tuple[float, ...], length: int) -> None:
    if len(values) != length:
        _refuse(loc, values, f"{length} values, one a draft position (draft.length)", str(len(values)))


class Spec(Section):
    """A pipeline from a prompt to an image, or to a text."""

    version: Annotated[Literal[1], BeforeValidator(_whole)] = Field(description="Version of this format.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="Name of the engine's folder: lower-case letters, digits, - and _, at most 64.",
    )
    target: Target = Field(description="Target model, whose distribution is sampled. Build-time.")
    draft: Draft = Field(description="Draft model, Jacobi drafts or n-gram lookup: proposes tokens. Build-time.")
    image: Image | None = Field(
        default=None, description="The tokenizer that turns code ids into pixels; of a target of images. Build-time."
    )
    text: Text | None = Field(default=None, description="The text that a language model writes. Build-time.")
    condition: Condition = Field(
        description="Kind of prompt, and its conversion to the prefix of the target. Build-time."
    )
    schedule: Schedule = Field(description="omega, the relaxation of each draft position. Run-time.")
    resampler: Resampler = Field(
        default=Resampler(), description="Distribution that a token is drawn from after a rejection. Run-time."
    )
    acceptance: Acceptance = Field(
        default=RatioRule(rule="ratio"), description="Acceptance rule of draft tokens. Run-time."
    )
    sampling: SamplingSection = Field(
        default=SamplingSection(), description="Logit processing before sampling. Run-time."
    )
    pacing: Pacing = Field(default=Pacing(), description="Conditions under which a round drafts. Run-time.")
    engine: EngineOptions = Field(
        default=EngineOptions(),
        description="Runtime, device and precision that the models are compiled for. Build-time.",
    )
    sources: OriginsSection = Field(
        default=OriginsSection(),
        description="Published checkpoints that `coolsd-rt convert SPEC` converts to the spec's files.",
    )

    @model_validator(mode="after")
    def _parts_that_fit(self) -> Spec:
        self._one_output()
        self._tree_that_runs()
        self._rows_that_run()
        length, rule, kind = self.draft.length, self.acceptance.rule, self.schedule.kind
        draft = self.draft
        if isinstance(draft, NgramDraft) and draft.shortest > draft.longest:
            expected = f"at most draft.longest, {draft.longest}"
            _refuse(("draft", "ngram", "shortest"), draft.shortest, expected, str(draft.shortest))
        if isinstance(self.schedule, Custom):
            _one_a_position(("schedule", "custom", "values"), self.schedule.values, length)
        if isinstance(self.acceptance, Synthetic):
            _one_a_position(("acceptance", "synthetic", "rates"), self.acceptance.rates, length)
        if rule != "ratio" and kind != "none":
            found = f"the schedule {kind}"
            _refuse(("acceptance", rule, "rule"), rule, "the schedule none: this rule has its own relaxation", found)
        if isinstance(self.acceptance, Lantern | LanternPP) and self.acceptance.neighbours > self.neighbours:
            loc = ("acceptance", rule, "neighbours")
            k = self.acceptance.neighbours
            _refuse(loc, k, f"at most the {self.neighbours} that are built in ({self.writes}.neighbours)", str(k))
        if self.resampler.kind == "lantern" and not isinstance(self.acceptance, Lantern | LanternPP):
            _refuse(("resampler", "kind"), "lantern", "the rule lantern or lantern_pp with it", f"the rule {rule}")
        return self

    def _one_output(self) -> None:
        """Refuse a spec without an output, with two, or with parts of another one."""
        if self.image is None and self.text is None:
            _refuse(("image",), None, "a section `image`, or `text` for a language model", "neither")
        if self.image is not None and self.text is not None:
            _refuse(("text",), self.text, "a section `image` or `text`", "both")
        of_text = {"target.model": self.target.model == "llama", "condition.kind": self.condition.kind == "text"}
        for key, found in of_text.items():
            if found != (self.writes == "text"):
                section, field = key.split(".")
                value = getattr(getattr(self, section), field)
                loc = (section, value, field) if section == "condition" else (section, field)
                wanted = "llama" if section == "target" else "text"
                expected = f"{wanted}, to write text" if self.writes == "text" else f"none but {wanted}, to draw images"
                _refuse(loc, value, expected.replace("none but", "anything but"), value)

    def _tree_that_runs(self) -> None:
        """Refuse a tree of another depth than the length, one that is too large, and one where nothing steps trees."""
        draft, engine = self.draft, self.engine
        if not isinstance(draft, EagleDraft) or draft.tree is None:
            return
        if len(draft.tree) != draft.length:
            expected = f"the tree's depth, {len(draft.tree)}, or no length"
            _refuse(("draft", "eagle", "length"), draft.length, expected, str(draft.length))
        if draft.nodes > limits.TREE_NODES.high:
            expected = f"at most {int(limits.TREE_NODES.high)} nodes"
            _refuse(("draft", "eagle", "tree"), list(draft.tree), expected, str(draft.nodes))
        if engine.device != "cpu":
            found = f"{engine.backend} on {engine.device}"
            _refuse(("draft", "eagle", "tree"), list(draft.tree), "onnxruntime or torch on cpu with a tree", found)
        rule, resampler = self.acceptance.rule, self.resampler.kind
        if rule != "ratio":
            _refuse(("acceptance", rule, "rule"), rule, "ratio with a tree", rule)
        if resampler != "optimal":
            _refuse(("resampler", "kind"), resampler, "optimal with a tree", resampler)
        if self.pacing.draft_confidence > 0:
            found = f"{self.pacing.draft_confidence:g}"
            _refuse(("pacing", "draft_confidence"), found, "0 with a tree, whose nodes have one depth", found)

    def _rows_that_run(self) -> None:
        """Refuse a row head where no backend steps it or for texts, which have no rows, and its rule without one."""
        if self.draft.model != "rows":
            if self.acceptance.rule == "per_position":
                found = f"the draft {self.draft.model}"
                _refuse(("acceptance", "per_position", "rule"), "per_position", "draft: {model: rows} with it", found)
            return
        if self.acceptance.rule == "per_position" and self.resampler.kind not in ("optimal", "residual"):
            found = self.resampler.kind
            _refuse(("resampler", "kind"), found, "optimal or residual with the rule per_position", found)
        if self.engine.device != "cpu":
            found = f"{self.engine.backend} on {self.engine.device}"
            _refuse(("draft", "rows", "model"), "rows", "onnxruntime or torch on cpu with a row head", found)
        if self.writes == "text":
            _refuse(("draft", "rows", "model"), "rows", "eagle, a family, jacobi or ngram for a text", "rows")

    @property
    def tree(self) -> tuple[int, ...] | None:
        """Widths of the tree that is drafted; None for a chain."""
        return self.draft.tree if isinstance(self.draft, EagleDraft) else None

    @property
    def writes(self) -> Literal["image", "text"]:
        """What the pipeline makes of a prompt."""
        return "image" if self.text is None else "text"

    @property
    def neighbours(self) -> int:
        """Number of nearest codes or tokens that are stored per code."""
        output = self.image or self.text
        return 0 if output is None else output.neighbours

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, defaults included, as JSON data. `Spec.model_validate` accepts it.

        Without `sources` if it is empty: sources are not part of an engine.
        """
        left_out = {key for key in ("image", "text") if getattr(self, key) is None}
        return self.model_dump(
            mode="json", exclude=left_out | ({"sources"} if self.sources == OriginsSection() else set())
        )

    def build_view(self) -> dict[str, Any]:
        """Return what an engine's fingerprint depends on, without file names (file contents are hashed instead)."""
        view = self.model_dump(mode="json", include={key for key in BUILD_TIME if getattr(self, key) is not None})
        for key in FILE_KEYS:
            section, field = key.split(".")
            view.get(section, {}).pop(field, None)
        for key in ("coupled", "longest", "shortest"):
            view["draft"].pop(key, None)
        if "tree" in view["draft"]:
            view["draft"]["tree"] = True
        return view

    def run_view(self) -> dict[str, Any]:
        """Return the run-time values, which can change without a build."""
        return self.model_dump(mode="json", include=set(RUN_TIME))

    def file_names(self) -> dict[str, str]:
        """Return the relative path of each file key (`target.weights`) that is set, in the order of `FILE_KEYS`."""
        full = self.resolved()
        parts = [(key, *key.split(".")) for key in FILE_KEYS]
        return {
            key: full[section][field] for key, section, field in parts if full.get(section, {}).get(field) is not None
        }

"""Applies run-time values from outside the file (`--delta 1.3`), validated by the same models.

Knows which keys are run-time. Does not know the command line: the names of options are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from coolsd_rt.errors import UserError
from coolsd_rt.spec.load import SpecError, dotted
from coolsd_rt.spec.messages import known_keys, problems_of, suggestion
from coolsd_rt.spec.model import RUN_TIME, Spec
from coolsd_rt.spec.networks import Coupling


def option_of(key: str) -> str:
    """Return the option of the command line that replaces a run-time key: `--rule` for `acceptance.rule`."""
    section, _, field = key.partition(".")
    return "--" + (section if field in ("kind", "") else field).replace("_", "-")


def with_overrides(spec: Spec, overrides: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Spec:
    """Return the spec with some run-time keys replaced, such as {"schedule.kind": "uniform", "schedule.delta": 1.3}.

    A new `schedule.kind` or `acceptance.rule` keeps `delta` or `neighbours` if both kinds have it. All other keys get
    the defaults of the new kind, so that a floor meant for one schedule does not apply to another. A rule with its own
    relaxation replaces the schedule, unless the overrides set a schedule too. names: what the user typed for each key
    (default: `--` and the key's last word).

    Raises:
        UserError: a key is not run-time.
        SpecError: the spec refuses a value; the error uses the user's words.
    """
    names = names or {}
    data = spec.resolved()
    for key in overrides:
        if key.split(".")[0] not in RUN_TIME or key.count(".") != 1:
            hint = suggestion(key, [f"{s}.{k}" for s in RUN_TIME for k in known_keys((s,), data)])
            found = f"{key}, which is built into the engine or unknown"
            raise UserError("override", expected=f"a key of {', '.join(RUN_TIME)}", found=found, fix=hint)
    for section, tag, kept in (("schedule", "kind", "delta"), ("acceptance", "rule", "neighbours")):
        new = overrides.get(f"{section}.{tag}")
        if new is not None and new != data[section][tag]:
            old = data[section]
            data[section] = {tag: new}
            if kept in old and kept in known_keys((section,), data):
                data[section][kept] = old[kept]
    if data["acceptance"]["rule"] != "ratio" and not any(key.startswith("schedule.") for key in overrides):
        data["schedule"] = {"kind": "none"}
    if "pacing.kind" not in overrides and any(key.startswith("pacing.") for key in overrides):
        data["pacing"]["kind"] = "manual"  # a threshold was given
    if overrides.get("pacing.kind") == "auto":
        data["pacing"] = {"kind": "auto"}
    for key, value in overrides.items():
        section, field = key.split(".")
        data[section][field] = value
    return _checked(data, names)


def with_jacobi(
    spec: Spec, length: int, coupled: Coupling | None = None, names: Mapping[str, str] | None = None
) -> Spec:
    """Return the spec with Jacobi drafts (from the target's last round) instead of its draft model.

    length: drafts in the window. Thresholds of the pacing are removed, since they are for the draft model. Raises
    SpecError as `with_overrides` does.
    """
    data = spec.resolved()
    data["draft"] = {"model": "jacobi", "length": length, "coupled": coupled}
    data["pacing"] = {"kind": spec.pacing.kind}
    return _checked(data, {"draft.length": "--draft-length", **(names or {})})


def with_draft_length(spec: Spec, length: int) -> Spec:
    """Return the spec with another draft length, which is not checked; a tree is cut to its first levels."""
    tree = None if spec.tree is None else spec.tree[:length]
    update = {"length": length, **({} if tree is None else {"tree": tree})}
    return spec.model_copy(update={"draft": spec.draft.model_copy(update=update)})


def with_ngram(spec: Spec, length: int, names: Mapping[str, str] | None = None) -> Spec:
    """Return the spec with drafts by n-gram lookup instead of its draft model; its own sizes, if it has them.

    length: most drafts of a round. Thresholds are removed, and errors are raised, as `with_jacobi` does.
    """
    data = spec.resolved()
    own = data["draft"] if data["draft"]["model"] == "ngram" else {"model": "ngram"}
    data["draft"] = {**own, "length": length}
    data["pacing"] = {"kind": spec.pacing.kind}
    return _checked(data, {"draft.length": "--draft-length", **(names or {})})


def _checked(data: dict[str, Any], names: Mapping[str, str]) -> Spec:
    try:
        return Spec.model_validate(data)
    except ValidationError as e:
        raise SpecError([_said(p.path, p.expected, p.found, p.fix, data, names) for p in problems_of(e, data)]) from e


def _said(
    path: tuple[str | int, ...], expected: str, found: str, fix: str, data: dict[str, Any], names: Mapping[str, str]
) -> UserError:
    key = dotted(path[:2])
    flag = names.get(key, option_of(key))
    chosen = {"schedule": ("schedule", "kind"), "acceptance": ("rule", "rule")}.get(str(path[0]))
    if chosen is not None:
        what = f"the {chosen[0]} '{data[str(path[0])].get(chosen[1])}'"
        if found == "an unknown key":
            return UserError(flag, expected=f"no such option with {what}", found="one", fix=fix)
        if found == "nothing":
            return UserError(flag, expected=f"a value ({what} needs one)", found=found)
    return UserError(flag, expected=expected, found=found, fix=fix)

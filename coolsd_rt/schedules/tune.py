"""Tunes an engine's schedule to a budget, writes a spec with it, and plots the trade-off.

Knows recordings, specs and plots. Does not know how the optimum is found (`search`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import yaml

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler
from coolsd_rt.law.traces import outlook
from coolsd_rt.schedules.analyze import RecordingConfig, noun_of, recorded
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.merging import compact
from coolsd_rt.schedules.recording import Recording
from coolsd_rt.schedules.search import LEAST_IMAGES, tune
from coolsd_rt.schedules.shapes import families
from coolsd_rt.schedules.tuned import Tuned
from coolsd_rt.spec import LoadedSpec, Spec, load_spec
from coolsd_rt.store.outputs import check_output, write_output

_PLOTS = (".png", ".svg")


def tune_engine(
    request: RecordingConfig,
    budget: Budget,
    resampler: str,
    write: Path | None,
    plot: Path | None,
    on_batch: Callable[[int, int], None] = lambda done, of: None,
    *,
    overwrite: bool = False,
) -> Tuned:
    """Record, tune, and write what was asked for. overwrite: whether `write` and `plot` may replace files.

    Raises UserError if the budget cannot be met, there are too few images, the spec would be written to another folder
    than its weights, the plot's type is unknown, or a file would be replaced; before anything is drawn where possible.
    """
    loaded = None
    budget.check()
    if request.images < LEAST_IMAGES:
        fix = f"give -n {LEAST_IMAGES} or more"
        raise UserError("--images", expected=f"at least {LEAST_IMAGES}", found=str(request.images), fix=fix)
    if write is not None:
        loaded = request.open().find_spec()
        if write.parent.resolve() != loaded.path.parent.resolve():
            expected = f"a file in {loaded.path.parent}, where the spec's weights are"
            raise UserError("--write", expected=expected, found=str(write))
        check_output(write, "--write", overwrite=overwrite)
    if plot is not None and plot.suffix not in _PLOTS:
        raise UserError("--plot", expected=" or ".join(_PLOTS), found=plot.name)
    if plot is not None:
        check_output(plot, "--plot", overwrite=overwrite)
    recording, spec = recorded(request, on_batch)
    kind = cast(Resampler, resampler)
    tuned = tune(recording.windows, budget, kind, noun_of(spec))
    if write is not None and loaded is not None:
        write_spec(loaded, tuned, kind, write, overwrite=overwrite)
    if plot is not None:
        write_output(plot, draw(recording, tuned, kind, plot.suffix[1:]), overwrite=overwrite)
    return tuned


def write_spec(loaded: LoadedSpec, tuned: Tuned, resampler: Resampler, path: Path, *, overwrite: bool = False) -> None:
    """Write the spec with the tuned schedule, and read it back as a check."""
    data = loaded.spec.resolved()
    data["schedule"] = {"kind": "custom", "values": list(tuned.best.omegas)}
    data["resampler"] = {"kind": resampler}
    data["acceptance"] = {"rule": "ratio"}
    Spec.model_validate(data)
    found = tuned.as_dict()
    budget = (
        f"{json.dumps(found['budget'])} at a confidence of {found['confidence']}, {tuned.images.recorded} {tuned.noun}"
    )
    head = f"# {loaded.path.name} with the schedule that `coolsd-rt tune` found for {budget}, drafts in every round.\n"
    write_output(path, (head + yaml.safe_dump(data, sort_keys=False)).encode(), overwrite=overwrite)
    load_spec(path)


def draw(recording: Recording, tuned: Tuned, resampler: Resampler, kind: str) -> bytes:
    """Plot accept length over KL per token: families as curves, the tuned schedule as a star."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    windows = compact(recording.windows)
    figure, axes = pyplot.subplots(figsize=(7, 5))
    for shape in families(windows.length):
        points = [outlook(windows, Law(shape.at(t), resampler)) for t in (0.05, 0.1, 0.2, 0.4, 0.8, 1.1, 1.6, 2.2, 3.2)]
        axes.plot([p.kl_per_token for p in points], [p.accept_length for p in points], marker=".", label=shape.name)
    best = outlook(windows, Law(tuned.best.omegas, resampler))
    axes.plot([best.kl_per_token], [best.accept_length], "k*", markersize=14, label=f"tuned ({tuned.best.name})")
    axes.set(xlabel="KL of the output from the target, nats a token", ylabel="accept length, tokens per round")
    axes.legend()
    axes.grid(alpha=0.3)
    data = io.BytesIO()
    options: dict[str, Any] = {"format": kind, "bbox_inches": "tight"}
    figure.savefig(data, **options)
    pyplot.close(figure)
    return data.getvalue()

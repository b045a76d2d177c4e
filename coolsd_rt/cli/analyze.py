"""`coolsd-rt analyze ENGINE`."""

from __future__ import annotations

import math

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.options import image_seed_option, moved_spec_option, reading_options, sample_prompts_option
from coolsd_rt.cli.output import json_option, print_json, show_fields, show_table
from coolsd_rt.cli.paths import ENGINE, WRITES_IN
from coolsd_rt.cli.recording import RecordingOptions
from coolsd_rt.cli.terminal.progress import batches
from coolsd_rt.cli.text_options import max_tokens_option
from coolsd_rt.law.clusters import RatioEstimate
from coolsd_rt.schedules.analyze import Analysis, analyze
from coolsd_rt.shown import fixed


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


def _with_error(value: float, ratio: RatioEstimate | None, digits: int) -> str:
    """`0.0201 ± 0.0012`; without the error where there is one image."""
    error = "" if ratio is None or math.isnan(ratio.error) else f" ± {fixed(ratio.error, digits)}"
    return f"{fixed(value, digits)}{error}"


def _show(found: Analysis) -> None:
    a = found.ambiguity
    show_fields(
        {
            f"{found.noun}, rounds": f"{found.images}, {found.rounds}",
            "mean entropy of P": f"{a.entropy:.3f} nats",
            "top-5 mass of P": f"{a.top5:.3f}",
            "TV(P, Q)": f"{a.tv:.3f}",
            "TV by draft position": _numbers(a.tv_by_position),
            **({"TV by row of the image": _numbers(a.tv_by_row)} if a.tv_by_row else {}),
        },
        title="positions that lossless decoding evaluates",
    )
    rows = [(f"{entropy:.3f}", f"{tv:.3f}", f"{1 - kept:.3f}") for entropy, tv, kept in a.bins]
    show_table(("entropy of P, nats", "TV(P, Q)", "rejected"), rows, title="ambiguity against rejection")
    laws = [
        (
            name,
            _with_error(o.accept_length, None if o.images is None else o.images.accept_length, 3),
            _with_error(o.kl_per_token, None if o.images is None else o.images.kl_per_token, 4),
            _with_error(o.tv_bound_per_token, None if o.images is None else o.images.tv_bound_per_token, 4),
            _numbers(o.acceptance),
        )
        for name, o in found.outlooks.items()
    ]
    columns = ("schedule", "accept length", "KL per token", "TV bound per token", "acceptance by position")
    show_table(columns, laws, title=f"predicted effect of each schedule, with the standard error over {found.noun}")


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "-n",
    "--images",
    "images",
    type=number(limits.IMAGES),
    default=16,
    show_default=True,
    help="Number of images, or of texts, to record.",
)
@sample_prompts_option
@image_seed_option
@click.option(
    "--recording",
    "folder",
    type=WRITES_IN,
    help="Folder that stores the recording; an interrupted recording is resumed.",
)
@max_tokens_option
@moved_spec_option
@reading_options
@threads_option()
@json_option
@gathered(RecordingOptions)
def command(given: RecordingOptions) -> None:
    """Record P and Q of real rounds, and compute from them the ambiguity, the acceptance, and the effect of any
    schedule without drawing again.

    Accept length and KL (of the output distribution from the target distribution, per generated token) are expectations
    over the recorded rounds, each with its standard error; one image, or text, is one observation. The bound is the
    paper's: total variation, summed over positions. The schedules include the schedule of the spec, or of another spec
    with the same weights given by --spec (for example one that tune wrote).

    \b
    Example:
      coolsd-rt analyze engines/emoji -n 32 --recording out/recording
    """
    request = given.recording
    with batches("recording", quiet=given.as_json) as on_batch:
        found = analyze(request, on_batch)
    if given.as_json:
        print_json(found.as_dict())
    else:
        _show(found)

"""One command for a machine with a GPU: tests, parity, benchmark; one JSON and one Markdown file of what came out.

    python tools/gpu_check.py --out benchmarks/results
    python tools/gpu_check.py --only tensorrt --only sizes

Takes under 8 minutes and no network. Parts in their order, each with a share of the time: `parity` of the networks on
the demo, `xl` (LlamaGen-XL at 1,024 tokens as a CUDA graph), `kernels` (each launch of a fused layer), `engines`
(parity of the others), `tensorrt` (XL compiled), `tests`, `sizes` (the rest). What cannot run is skipped, with the
reason in the report. `--rehearse` goes the whole way on a CPU with tiny models: for trying the tool, never for figures.
Not run on a GPU yet.
"""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

try:
    from coolsd_rt import limits
    from coolsd_rt.cli.entry import enter
    from coolsd_rt.cli.numbers import number
    from coolsd_rt.cli.paths import WRITES_IN
    from coolsd_rt.cli.terminal import say, say_lines
    from coolsd_rt.errors import CoolsdError
    from tools.gpu.check import PARTS, Check, Plan
    from tools.gpu.report import Report
except ModuleNotFoundError as error:  # a checkout that was carried to a machine without an index
    fix = "install it, or carry its wheel (docs/gpu.md)"
    line = f"error: {error.name} is not installed; {fix}"
    print(line, file=sys.stderr)  # noqa: T201  (what prints is not there)
    sys.exit(2)

BUDGET = 460.0


@click.command()
@click.option(
    "--out",
    type=WRITES_IN,
    default=Path("benchmarks/results"),
    show_default=True,
    help="Output folder of the results.",
)
@click.option(
    "--seconds",
    type=number(limits.SECONDS),
    default=BUDGET,
    show_default=True,
    help="Start no further work after this time.",
)
@click.option(
    "--only",
    type=click.Choice(list(PARTS)),
    multiple=True,
    help="Part of the check to run. Repeatable. The last selected part gets all of the remaining time.",
)
@click.option("--rehearse", is_flag=True, help="Rehearse on a CPU, with tiny models.")
def command(out: Path, seconds: float, only: tuple[str, ...], rehearse: bool) -> None:
    """Check everything that needs a GPU, on this one."""
    if not rehearse and not torch.cuda.is_available():
        fix = "run it on a machine with one, with a torch built for CUDA; --rehearse tries the tool on a CPU"
        raise CoolsdError("a GPU", expected="one that torch sees", found=f"none (torch {torch.__version__})", fix=fix)
    faulthandler.enable()  # native code may die without a word
    check = Check(Plan(seconds, only or tuple(PARTS), rehearse), say)
    report = Report(out)
    try:
        for outcome in check.run():
            report.write(outcome)
    finally:
        if report.files is not None:  # what an interrupt leaves is what was found before it
            say_lines(report.files[1].read_text(encoding="utf-8"))
            say(f"results: {report.files[0]} and {report.files[1]}")
    if check.failed:
        raise CoolsdError("the GPU check", expected="every part to pass", found=", ".join(check.failed))


if __name__ == "__main__":
    enter(command)

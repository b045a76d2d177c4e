"""Rules of other methods on recorded rounds of an engine: `python -m tools.paper.rivals_recorded engines/emoji`.

Lossless rounds are recorded once; each rule is then evaluated on their P and Q (`coolsd_rt.law.traces`): tokens of a
round, and how far the law of a round's tokens is from the target's. Beside each stands COOL-SD's uniform omega that has
the same accept length on the same rounds. Only rules that judge a chain's drafts one after another can be evaluated so.

Knows rules and recordings. Does not know engines. docs/rivals.md is the page. Needs the extras cpu and measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from coolsd_rt import limits
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal import note, say, show_table
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler, Tolerance, make_omegas
from coolsd_rt.law.rivals import Grouped, RelaxedArgmax, SkippedVerification
from coolsd_rt.law.traces import RecordedRounds, RoundForecast, WindowRule, by_row, outlook
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows.opened import OpenedEngine
from tools.paper.questions import open_bench

Near = NDArray[np.int64]
MOST = 1e6  # omega
LENDING = 16


@dataclass(frozen=True)
class RecordedLine:
    """A rule on the recorded rounds. uniform: COOL-SD's omega of the same accept length; None: none reaches it.

    accept_length: tokens a round. tv: of the joint law of a round's tokens from the target's, and its standard error
    over images. kl: of the same, nats a token; None: infinite, where the rule leaves the target's support.
    """

    method: str
    rule: str
    accept_length: float
    tv: float
    tv_error: float
    kl: float | None
    omega: float | None = None
    uniform_tv: float | None = None
    uniform_kl: float | None = None


def lantern(near: Near, kind: str, bound: float, resampler: Resampler, length: int) -> Law:
    columns = near[:, : LENDING + (resampler == "lantern")]
    return Law((1.0,) * length, resampler, Tolerance(kind, bound, columns, LENDING))  # type: ignore[arg-type]


def rules(length: int, near: Near | None) -> dict[tuple[str, str], Law | WindowRule]:
    """The rules, by method and setting; LANTERN's only with the nearest codes int64 [V, n]."""
    ones = (1.0,) * length
    found: dict[tuple[str, str], Law | WindowRule] = {
        ("COOL-SD", "omega 1"): Law(ones),
        ("COOL-SD", "exponential, delta 1.1"): Law(make_omegas("exponential", length, delta=1.1)),
        ("COOL-SD", "exponential, delta 1.1, floor 1"): Law(make_omegas("exponential", length, delta=1.1, floor=1.0)),
    }
    if near is not None:
        whose: tuple[tuple[Resampler, str], ...] = (("lantern", "own residual"), ("optimal", "G*"))
        for resampler, said in whose:
            for bound in (0.1, 0.3):
                found["LANTERN", f"bound {bound:g}, {said}"] = lantern(near, "lantern", bound, resampler, length)
            for factor in (1.5, 2.0):
                key = "LANTERN++", f"factor {factor:g}, {said}"
                found[key] = lantern(near, "lantern_pp", factor, resampler, length)
    for radius in (1, 2, 7):
        found["GSD", f"radius {radius}, spread .15"] = by_row(Grouped(length, radius).judge)
    for skipped in (1, 2):
        said = f"{skipped} of {length} drafts skipped, every pass"
        found["VVS", said] = by_row(SkippedVerification(length, skipped).judge)
    found["relaxed-argmax", "slack .1, argmax"] = by_row(RelaxedArgmax(length, 0.1, 10).judge)
    found["relaxed-argmax", "slack .1, P"] = by_row(RelaxedArgmax(length, 0.1, 10, "target").judge)
    return found


def supported(windows: RecordedRounds) -> RecordedRounds:
    """The same rounds with only as many codes a position as can have weight: those without P and Q change no figure of
    the rule ratio, which does not ask for a code's number."""
    weight = np.where((windows.target > 0) | (windows.draft > 0), windows.target + windows.draft, 0.0)
    most = int((weight > 0).sum(-1).max())
    codes = np.argsort(-weight, axis=-1, kind="stable")[..., :most]
    drafts = (codes == windows.drafts[..., None]).argmax(-1)
    target, draft = (np.take_along_axis(each, codes, axis=-1) for each in (windows.target, windows.draft))
    return replace(windows, target=target, draft=draft, drafts=drafts)


def matched(windows: RecordedRounds, wanted: float) -> tuple[float, RoundForecast] | None:
    """Return COOL-SD's uniform omega with this accept length, and its figures; None: none has it."""

    def lacking(omega: float) -> float:
        return outlook(windows, Law((omega,) * windows.length)).accept_length - wanted

    if lacking(1.0) > 1e-9 or lacking(MOST) < 0:
        return None
    omega = 1.0 if abs(lacking(1.0)) <= 1e-9 else float(brentq(lacking, 1.0, MOST, xtol=1e-6))
    return omega, outlook(windows, Law((omega,) * windows.length))


def bounded(windows: RecordedRounds, bound: float) -> tuple[float, RoundForecast] | None:
    """Return COOL-SD's uniform omega whose bound on TV a token is `bound`, and its figures; None: none reaches it."""

    def lacking(omega: float) -> float:
        return outlook(windows, Law((omega,) * windows.length)).tv_bound_per_token - bound

    if lacking(MOST) < 0:
        return None
    omega = float(brentq(lacking, 1.0, MOST, xtol=1e-6))
    return omega, outlook(windows, Law((omega,) * windows.length))


def line_of(
    windows: RecordedRounds, few: RecordedRounds, method: str, rule: str, law: Law | WindowRule
) -> RecordedLine:
    """Evaluate one rule. few: of `supported`."""
    found = outlook(windows, law)
    peer = matched(few, found.accept_length)
    beside = () if peer is None else (peer[0], peer[1].tv_round, _finite(peer[1].kl_per_token))
    error = found.tv_round_error
    return RecordedLine(
        method, rule, found.accept_length, found.tv_round, error, _finite(found.kl_per_token), *beside
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def answer(windows: RecordedRounds, near: Near | None, told: Callable[[str], None]) -> list[RecordedLine]:
    """Evaluate every rule."""
    lines, few = [], supported(windows)
    for (method, rule), law in rules(windows.length, near).items():
        told(f"{method}, {rule}")
        lines.append(line_of(windows, few, method, rule, law))
    return lines


def cells(line: RecordedLine) -> tuple[str, ...]:
    """Return the cells of a line of the table."""

    def said(value: float | None, digits: int = 4) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return (
        line.method, line.rule, f"{line.accept_length:.3f}", f"{line.tv:.4f} ({line.tv_error:.4f})",
        "infinite" if line.kl is None else f"{line.kl:.4f}", said(line.omega, 3), said(line.uniform_tv),
        said(line.uniform_kl),
    )  # fmt: skip


def show_bounded(windows: RecordedRounds, bound: float) -> None:
    """Print the omega of a bound, or the largest bound that any omega has."""
    found = bounded(windows, bound)
    if found is None:
        most = outlook(windows, Law((MOST,) * windows.length))
        at = f"{most.accept_length:.3f} tokens a round"
        say(f"no omega: the largest bound is {most.tv_bound_per_token:.4f} a token, at {at}")
        return
    omega, figures = found
    say(f"uniform omega {omega:.3f}: {figures.accept_length:.3f} tokens a round, TV of a round {figures.tv_round:.4f}")


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("-n", "--images", type=number(limits.IMAGES), default=16, show_default=True, help="Images to record.")
@click.option("--out", type=WRITES, help="JSON file to write.")
@click.option("--bound", type=number(limits.PROBABILITY), help="Print COOL-SD's omega with this bound on TV a token.")
@overwrite_option
def command(engine: Path, images: int, out: Path | None, bound: float | None, overwrite: bool) -> None:
    """Evaluate rules of other methods on lossless rounds of a built ENGINE.

    With --bound: nothing but the uniform omega whose bound is that of a drawing with the rule per_position.

    \b
    Example:
      python -m tools.paper.rivals_recorded engines/emoji --out out/rivals-recorded.json
    """
    if out is not None:
        check_output(out, "--out", overwrite=overwrite)
    opened = OpenedEngine.at(engine)
    if opened.spec.writes == "text":
        raise UserError("the engine", expected="one that draws images", found="one that writes text")
    bench = open_bench(engine, images, None, None, ())
    length = opened.spec.draft.length
    recording = bench.record(length)
    if bound is not None:
        show_bounded(supported(recording.windows), bound)
        return
    lines = answer(recording.windows, opened.neighbours, note)
    if out is not None:
        document: dict[str, Any] = {
            "images": images, "rounds": len(recording.windows.drafts), "length": length,
            "lines": [asdict(line) for line in lines],
        }  # fmt: skip
        write_output(out, (json.dumps(document, indent=1) + "\n").encode(), overwrite=overwrite)
    columns = (
        "method",
        "rule",
        "tokens a round",
        "TV of a round (error)",
        "KL a token, nats",
        "omega",
        "its TV",
        "its KL",
    )
    show_table(columns, [cells(line) for line in lines])


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()

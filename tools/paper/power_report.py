"""Compares the laws of a sweep with a base on the same images: three figures, differences, tests, and both as text.

    accept length   tokens / rounds, percentile bootstrap over the images
    retrieval       share of right images, percentile bootstrap; p value of the exact test of McNemar
    frechet         bias-corrected distance, and its differences, bootstrap over images together with their references

Every law and figure uses the same bootstrap samples. Holm's correction is over the laws, for each figure.

Knows arrays of images of points, and JSON data. Does not know files, plots or a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tools.paper.paired import Counts, Floats, LawImages, compared, correct, counts, mcnemar, ratio, share
from tools.paper.paired_frechet import FrechetPairs

LABELS = {
    "accept_length": "accept length, tokens per round",
    "retrieval": "retrieval accuracy",
    "frechet": "Fréchet distance from plain decoding",
}
METHOD = {
    "samples": "bootstrap over image indices, the same for all laws; 95% percentile intervals",
    "accept_length": "ratio of sums, tokens / rounds; p value by inversion of the bootstrap interval",
    "retrieval": "p value of the exact test of McNemar",
    "frechet": "reference k is resampled with image k; the bootstrap's bias (mean of the samples less the estimate) is "
    "subtracted from estimate and interval, for distances and for differences; p value by inversion of the interval",
    "p_holm": "Holm's correction over the laws, for each figure",
}


def report_of(
    laws: Sequence[LawImages],
    base: int,
    real: Floats | None = None,
    draws: int = 2000,
    on_sample: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the report as JSON data. real: features of the references, if the Fréchet distance is asked for."""
    own = laws[base]
    weights = counts(len(own.rounds), draws)
    figures = {"accept_length": _accept_length(laws, base, weights)}
    if own.correct is not None:
        figures["retrieval"] = _retrieval(laws, base, weights)
    if real is not None and own.features is not None:
        figures["frechet"] = _frechet(laws, base, real, weights, on_sample)
    for rows in figures.values():
        correct(rows)
    return {
        "images": len(own.rounds),
        "references": None if real is None else len(real),
        "base": own.name,
        "draws": draws,
        "method": METHOD,
        "figures": figures,
    }


def _rows(
    laws: Sequence[LawImages], base: int, values: Sequence[float], samples: Sequence[Floats], corrected: bool = False
) -> dict[str, dict[str, Any]]:
    """Return each law's value and its difference from the base, from one column of samples per law."""
    rows = compared([law.name for law in laws], base, values, samples, corrected)
    return {law.name: {"series": law.series, **rows[law.name]} for law in laws}


def _accept_length(laws: Sequence[LawImages], base: int, weights: Counts) -> dict[str, Any]:
    samples = [ratio(law.tokens, law.rounds, weights) for law in laws]
    return _rows(laws, base, [law.accept_length for law in laws], samples)


def _retrieval(laws: Sequence[LawImages], base: int, weights: Counts) -> dict[str, Any]:
    correct = [law.known_correct for law in laws]
    rows = _rows(laws, base, [float(c.mean()) for c in correct], [share(c, weights) for c in correct])
    for i, law in enumerate(laws):
        if i != base:
            found = mcnemar(correct[i], correct[base])
            rows[law.name] |= {"gained": found.gained, "lost": found.lost, "p": found.p}
    return rows


def _frechet(
    laws: Sequence[LawImages], base: int, real: Floats, weights: Counts, on_sample: Callable[[], None]
) -> dict[str, Any]:
    pairs = FrechetPairs({law.name: law.known_features for law in laws}, real)
    values, samples = pairs.value(), pairs.bootstrap(weights, on_sample)
    return _rows(laws, base, values.tolist(), list(samples.T), corrected=True)


def page_of(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report as text."""
    yield f"{report['images']} images a law, compared with {report['base']} on the same prompts and seeds"
    if lacking := report.get("lacking"):
        yield f"NOT FINISHED, without: {'; '.join(lacking)}"
    for figure, rows in report["figures"].items():
        yield ""
        yield f"{LABELS[figure]} (95% intervals)"
        yield from _aligned([_head(figure), *(_cells(name, row, figure) for name, row in rows.items())])
    yield ""
    for name, text in report["method"].items():
        yield f"{name}: {text}"


def _head(figure: str) -> list[str]:
    extra = ["gained", "lost"] if figure == "retrieval" else []
    return ["law", "value", "interval", "difference", "interval", "p", "p, Holm", *extra]


def _cells(name: str, row: dict[str, Any], figure: str) -> list[str]:
    value, apart = row["value"], row["difference"]
    cells = [name, f"{value['value']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}"]
    if apart is None:
        return [*cells, "base"]
    cells += [f"{apart['value']:+.4f}", f"{apart['low']:+.4f} to {apart['high']:+.4f}"]
    cells += [f"{row['p']:.2g}", f"{row['p_holm']:.2g}"]
    return [*cells, str(row["gained"]), str(row["lost"])] if figure == "retrieval" else cells


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines, columns of equal width."""
    count = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(count)]
    for row in rows:
        yield "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()


def plan_page(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a plan as text."""
    n = plan["images"]
    yield f"smallest true differences from {plan['base']} that {n} images a law find with probability {plan['power']}"
    yield f"at a two-sided level of {plan['level']}, from the {plan['pilot_images']} images a law of a pilot"
    head = ["law", "pilot's difference", f"error at {n}", "smallest", f"smallest, Holm over {plan['comparisons']}"]
    for figure, rows in plan["comparisons_of_the_pilot"].items():
        yield ""
        yield LABELS[figure]
        keys = ("error", "smallest", "smallest_holm")
        body = [[name, f"{r['pilot_difference']:+.4f}", *(_short(r[k]) for k in keys)] for name, r in rows.items()]
        largest = plan["largest"][figure]
        yield from _aligned([head, *body, ["largest", "", "", *(_short(largest[k]) for k in keys[1:])]])
    if found := plan["frechet_scaling"]:
        yield ""
        sizes = ", ".join(f"{_short(e)} at {k}" for k, e in zip(found["sizes"], found["errors"], strict=True))
        yield f"Fréchet distance: error of a difference {sizes} images (subsets of the pilot),"
        yield f"bootstrap {_short(found['bootstrap_error'])}; it falls with exponent {_short(found['exponent'])}."
        yield "The table takes -0.5, the safe end; with the exponent of the subsets the largest are"
        at, ends = plan["largest"]["frechet"], ("smallest_by_exponent", "smallest_holm_by_exponent")
        yield " and with Holm's correction ".join(_short(at[key]) for key in ends)


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"

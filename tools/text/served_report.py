"""Compares the laws of drawn texts with lossless decoding: `python -m tools.text.served_report FOLDER --out OUT`.

Every figure is a ratio of sums over texts. Intervals and p values are of a bootstrap over questions, with the same
resamples for all laws and figures; differences from lossless decoding are paired by question and sample. A law counts
with the samples that every law has complete.

Knows arrays of texts and their statistics. Does not know engines. Needs the extras cpu and measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.paths import FOLDER, READS, WRITES_IN
from coolsd_rt.cli.terminal import note, say, show_table
from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.shown import fixed
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.store.results import Arrays
from tools.paper.paired import POWER, Counts, Floats, Interval, compared, counts, ratio
from tools.paper.power import DRAWS, known
from tools.paper.power_plan import Plan
from tools.text.answers import answer_of
from tools.text.measures import distinct, repeated
from tools.text.served_laws import BASE
from tools.text.served_rounds import COLUMNS
from tools.text.served_texts import Question, ServedFolder, unpacked

REPORT = "served"
Ratio = tuple[Floats, Floats]
"""Numerator and denominator of a figure, one entry a text."""

LABELS = {
    "accept_length": "accept length, tokens per round",
    "kl_revealed": "KL a token of texts with their rounds, nats: an upper bound of that of texts",
    "kl_round": "KL a token of rounds one by one, nats: as for images",
    "log_likelihood": "log-likelihood a token under the target, nats",
    "repetition": "share of 4-token runs that occurred before in the text",
    "distinct_1": "distinct tokens of a text",
    "distinct_2": "distinct pairs of tokens of a text",
    "length": "tokens of a text",
    "ended": "share of texts that reached an end token",
    "right": "share of right answers, of questions that have one",
}


@dataclass(frozen=True)
class LawTexts:
    """The texts of a law, as ratios by figure. question: the place of each text's question. bins: sums over texts."""

    name: str
    question: Any
    ratios: Mapping[str, Ratio]
    bins: Floats

    @staticmethod
    def of(name: str, arrays: Arrays, questions: Sequence[Question]) -> LawTexts:
        """Compute the figures of texts."""
        ids = [row[:n].tolist() for row, n in zip(arrays["ids"], arrays["length"], strict=True)]
        one, length = np.ones(len(ids)), arrays["length"].astype(np.float64)
        later, runs = length - 1, np.array([repeated(row) for row in ids], np.float64)  # the first token is no round's
        answers = [answer_of(questions[k]) for k in arrays["question"]]
        texts = unpacked(arrays["text"])
        right = [answer is not None and answer.right(text) for answer, text in zip(answers, texts, strict=True)]
        ratios = {
            "accept_length": (later, arrays["rounds"].astype(np.float64)),
            "kl_revealed": (arrays["kl_revealed"], later), "kl_round": (arrays["kl"], later),
            "log_likelihood": (arrays["log_likelihood"], later), "repetition": (runs[:, 0], runs[:, 1]),
            "distinct_1": (np.array([distinct(row, 1) for row in ids]), one),
            "distinct_2": (np.array([distinct(row, 2) for row in ids]), one),
            "length": (length, one), "ended": (arrays["ended"].astype(np.float64), one),
            "right": (np.array(right, np.float64), np.array([answer is not None for answer in answers], np.float64)),
        }  # fmt: skip
        return LawTexts(name, arrays["question"], ratios, arrays["bins"])

    def by_question(self, values: Floats, questions: int) -> Floats:
        """Return the sums of values over each question's texts."""
        return np.asarray(np.bincount(self.question, values, questions), np.float64)


def figure(laws: Sequence[LawTexts], name: str, weights: Counts) -> dict[str, Any] | None:
    """Return a figure of every law with its difference from the first law; None if no text has it."""
    questions = weights.shape[1]
    sums = [[law.by_question(part, questions) for part in law.ratios[name]] for law in laws]
    if not all(bottom.sum() for _, bottom in sums):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = [ratio(top, bottom, weights) for top, bottom in sums]
    usable = np.isfinite(samples).all(axis=0)  # a resample may have no question with a checkable answer
    values = [float(top.sum() / bottom.sum()) for top, bottom in sums]
    return compared([law.name for law in laws], 0, values, [part[usable] for part in samples])


def ambiguity(law: LawTexts, weights: Counts) -> list[dict[str, Any]]:
    """Return rejection by the entropy of P, with intervals over questions; bins without positions are left out."""
    rows, questions = [], weights.shape[1]
    column = {name: i for i, name in enumerate(COLUMNS)}
    for at in range(law.bins.shape[1]):
        sums = {name: law.by_question(law.bins[:, at, i], questions) for name, i in column.items()}
        positions = sums["positions"]
        if total := float(positions.sum()):
            means = {name: float(values.sum() / total) for name, values in sums.items() if name != "positions"}
            with np.errstate(invalid="ignore", divide="ignore"):
                samples = ratio(sums["rejected"], positions, weights)
            interval = Interval.of(means["rejected"], samples[np.isfinite(samples)])
            rows.append({**means, "positions": int(total), "low": interval.low, "high": interval.high})
    return rows


def report_of(
    folder: ServedFolder, draws: int, say: Callable[[str], None], images: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the report as JSON data. images: rejection by entropy of images. Raises UserError: nothing to compare."""
    complete = {law.name: folder.complete(law) for law in folder.laws()}
    samples = min((n for n in complete.values() if n), default=0)
    if not complete.get(BASE) or sum(n > 0 for n in complete.values()) < 2:
        found = ", ".join(f"{name}: {n}" for name, n in complete.items()) or "none"
        raise UserError(str(folder.path), expected=f"a complete sample of {BASE} and of another law", found=found)
    questions, laws = folder.questions, []
    for law in folder.laws():
        if complete[law.name]:
            say(f"reading {law.name}")
            laws.append(LawTexts.of(law.name, folder.read(law, samples), questions))
    weights = counts(len(questions), draws)
    figures = {name: rows for name in LABELS if (rows := figure(laws, name, weights)) is not None}
    texts = samples * len(questions)
    plan = Plan(texts, max(1, len(laws) - 1))
    for rows in figures.values():
        for row in rows.values():
            if row["difference"] is not None:
                row["smallest"] = plan.of_error(row["difference"]["error"], texts)
    head = {name: folder.head[name] for name in ("engine", "draft", "draft_length", "seed", "max_tokens")}
    return {
        **head, "questions": len(questions), "checkable": sum(answer_of(one) is not None for one in questions),
        "samples": samples, "complete": complete, "texts": texts, "base": BASE, "draws": draws, "figures": figures,
        "by_ambiguity": {one.name: ambiguity(one, weights) for one in laws}, "images": images,
    }  # fmt: skip


def page_of(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield tables: title, columns, rows."""
    for name, found in report["figures"].items():
        columns = ("law", "value", "interval", "difference", "interval", "p, Holm", f"found with {POWER:g}")
        yield LABELS[name], columns, [_cells(law, row) for law, row in found.items()]
    rows = report["by_ambiguity"][BASE]
    head = ("entropy of P", "positions", "rejected", "interval", "TV(P, Q)", "top-5 mass")
    yield f"{BASE}: rejection by the entropy of P, nats", head, [
        (f"{row['entropy']:.3f}", str(row["positions"]), f"{row['rejected']:.4f}",
         f"{row['low']:.4f} to {row['high']:.4f}", f"{row['tv']:.4f}", f"{row['top5']:.4f}")
        for row in rows
    ]  # fmt: skip


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    value, apart = row["value"], row["difference"]
    cells = (name, fixed(value["value"], 4), f"{fixed(value['low'], 4)} to {fixed(value['high'], 4)}")
    if apart is None:
        return (*cells, "base", "", "", "")
    between = f"{apart['low']:+.4f} to {apart['high']:+.4f}"
    smallest = f"{row['smallest']['smallest']:.4f}" if apart["error"] else "unknown"  # no two texts differed
    return (*cells, f"{apart['value']:+.4f}", between, f"{row['p_holm']:.2g}", smallest)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--out", type=WRITES_IN, help="Folder to write served.json and served.svg into.")
@click.option("--draws", type=number(DRAWS), default=2000, show_default=True, help="Number of bootstrap samples.")
@click.option("--images", type=READS, help="questions.json of tools.paper.questions: its curve of images beside texts.")
@overwrite_option
def main(folder: Path, out: Path | None, draws: int, images: Path | None, overwrite: bool) -> None:
    """Compare the laws of the texts in FOLDER with lossless decoding.

    \b
    Example:
      python -m tools.text.served_report out/served --images docs/questions/questions.json --out out/compared
    """
    for kind in ("json", "svg") if out is not None else ():
        assert out is not None
        check_output(out / f"{REPORT}.{kind}", "--out", overwrite=overwrite)
    found = known(report_of(ServedFolder.at(folder), draws, note, _curve(images)))
    say(f"{found['samples']} samples of {found['questions']} questions a law, {found['checkable']} with an answer")
    say("complete samples: " + "; ".join(f"{name} {count}" for name, count in found["complete"].items()))
    for title, columns, rows in page_of(found):
        say()
        show_table(columns, rows, title)
    if out is not None:
        from tools.text.served_plot import plot

        write_output(out / f"{REPORT}.json", (json.dumps(found, indent=1) + "\n").encode(), overwrite=overwrite)
        write_output(out / f"{REPORT}.svg", plot(found), overwrite=overwrite)


def _curve(path: Path | None) -> list[dict[str, Any]] | None:
    """Return rejection by entropy of images. Raises UserError for another file."""
    if path is None:
        return None
    expected = "questions.json of tools.paper.questions"
    data = read_json(path, expected, RESULT_BYTES)
    rows = data.get("by_ambiguity") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"entropy", "rejected"} <= set(row) for row in rows
    ):
        raise UserError(str(path), expected=expected, found="a file without by_ambiguity")
    return rows


if __name__ == "__main__":
    enter(main)

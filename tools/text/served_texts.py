"""Where the texts of `tools.text.served` are stored, and what is read back.

    folder/served.json              the engine, the questions and the settings that all laws share
    folder/<law>/law.json           the law
    folder/<law>/00000.npz, ...     one batch of one sample, written atomically; sample 0 of all questions first

Knows files and arrays. Does not know engines or statistics. A folder with another engine, other questions or other
settings is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.errors import UserError
from coolsd_rt.files import parse_json, read_json, read_text
from coolsd_rt.limits import LINE_CHARACTERS, RESULT_BYTES
from coolsd_rt.store.results import Arrays, Batches, claim
from tools.text.served_laws import LAWS, ServedLaw

HEAD, LAW_HEAD = "served.json", "law.json"
FORMAT = 1
FIELDS = (
    "question", "ids", "length", "ended", "text", "rounds", "expected", "kl", "kl_revealed", "log_likelihood", "bins",
)  # fmt: skip
"""Arrays of a batch, one entry a text. question: its place in the list. ids: filled with -1. text: UTF-8, filled with
0. The others: of `served_rounds.TextRounds`."""


@dataclass(frozen=True)
class Question:
    """A question: its number in the file, its category, and its first turn."""

    number: int
    category: str
    prompt: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {"question_id": self.number, "category": self.category, "prompt": self.prompt}


def read_questions(path: Path) -> list[Question]:
    """Read a file of JSON lines with `question_id`, `category` and `turns`. Raises UserError for anything else."""
    text = read_text(path, "questions, a JSON object a line", RESULT_BYTES)
    found: list[Question] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            found.append(_question(line, f"{path}, line {number}"))
    if not found:
        raise UserError(str(path), expected="questions, a JSON object a line", found="none")
    if len({one.number for one in found}) < len(found):
        raise UserError(str(path), expected="each question_id once", found="one twice")
    return found


def _question(line: str, where: str) -> Question:
    expected = "a JSON object with question_id, category and turns, as MT-Bench has it"
    try:
        row = parse_json(line[:LINE_CHARACTERS])
    except ValueError as error:
        raise UserError(where, expected=expected, found=str(error)[:100]) from error
    values = (row.get("question_id"), row.get("category"), row.get("turns")) if isinstance(row, dict) else ()
    match values:
        case (int() as number, str() as category, [str() as prompt, *_]):
            return Question(number, category, prompt)
    raise UserError(where, expected=expected, found="another line")


class ServedFolder:
    """A folder of texts of several laws. head: JSON data that holds for all laws."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path, self.head = path, head
        self.batches = len(head["batches"])

    @staticmethod
    def claimed(path: Path, head: Mapping[str, Any]) -> ServedFolder:
        """Return the folder for texts that `head` describes. Raises UserError if it holds something else."""
        claim(path, HEAD, head, "texts of this engine, these questions and settings")
        return ServedFolder(path, head)

    @staticmethod
    def at(path: Path) -> ServedFolder:
        """Return a folder that was drawn. Raises UserError if it is not one."""
        head = read_json(path / HEAD, "texts of tools.text.served", RESULT_BYTES)
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise UserError(str(path / HEAD), expected=f"texts of format {FORMAT}", found="another file")
        return ServedFolder(path, head)

    @property
    def questions(self) -> list[Question]:
        """The questions, in the order of the arrays' numbers."""
        return [Question(q["question_id"], q["category"], q["prompt"]) for q in self.head["questions"]]

    def claim_law(self, law: ServedLaw, described: Mapping[str, Any]) -> None:
        """Make the folder of a law. Raises UserError if it holds texts of another law."""
        claim(self.path / law.folder, LAW_HEAD, {"name": law.name, **described}, "texts of this law")

    def get(self, law: ServedLaw, sample: int, batch: int, make: Callable[[], Arrays]) -> Arrays:
        """Return a batch from its file, or draw it with `make` and store it. Raises as `Batches.get`."""
        kept = Batches(self.path / law.folder, FIELDS, "a batch of texts")
        return kept.get(sample * self.batches + batch, make)

    def has(self, law: ServedLaw, sample: int, batch: int) -> bool:
        """Whether a batch is stored."""
        return (self.path / law.folder / f"{sample * self.batches + batch:05d}.npz").exists()

    def complete(self, law: ServedLaw) -> int:
        """Return how many samples of a law have all their batches, from sample 0 on."""
        sample = 0
        while all(self.has(law, sample, batch) for batch in range(self.batches)):
            sample += 1
        return sample

    def laws(self) -> list[ServedLaw]:
        """Return the laws with a folder."""
        return [law for law in LAWS.values() if (self.path / law.folder / LAW_HEAD).is_file()]

    def read(self, law: ServedLaw, samples: int) -> Arrays:
        """Return the arrays of the first samples of a law, joined, each sample in the order of the questions."""
        parts = [self.get(law, s, b, _absent) for s in range(samples) for b in range(self.batches)]
        whole = {name: _joined([part[name] for part in parts]) for name in FIELDS}
        sample = np.repeat(np.arange(len(parts)) // self.batches, [len(part["question"]) for part in parts])
        order = np.lexsort((whole["question"], sample))
        return {"sample": sample[order], **{name: values[order] for name, values in whole.items()}}


def _absent() -> Arrays:
    raise AssertionError("a batch of a complete sample")  # `complete` has seen its file


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Join arrays; texts of different batches have different widths of `text`."""
    if parts[0].ndim == 2:
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
    return np.concatenate(parts)


def packed(texts: list[str]) -> NDArray[np.uint8]:
    """Return texts as bytes [M, n] of UTF-8, filled with 0. A 0 within a text is dropped."""
    data = [text.replace("\0", "").encode() for text in texts]
    width = max(1, *map(len, data))
    return np.stack([np.frombuffer(one.ljust(width, b"\0"), np.uint8) for one in data])


def unpacked(rows: NDArray[np.uint8]) -> list[str]:
    """Return the texts of `packed`."""
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]

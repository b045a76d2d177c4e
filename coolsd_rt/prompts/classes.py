"""Converts class labels to ids: the `class` condition of LlamaGen c2i.

Knows numbers and a file of labels. Does not know networks. Needs no torch.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

from coolsd_rt.errors import UserError
from coolsd_rt.files import read_text
from coolsd_rt.limits import LABEL_BYTES
from coolsd_rt.prompts.base import Encoded, quoted, some_text
from coolsd_rt.shown import shorten

LABELS_FILE = "labels.txt"  # file name in an engine's folder


def _plain(name: str) -> str:
    """Normalise a label: case, white space, and the difference between "_" and a space do not count."""
    return " ".join(name.replace("_", " ").lower().split())


@dataclass(frozen=True)
class ClassLabels:
    """A `Conditioner` with one prefix position: classes 0 .. `classes` - 1; the id `classes` is unconditional.

    numbers: normalised label to its classes (ImageNet has two cranes). first: one label per class.
    """

    classes: int = 1000
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    first: tuple[str, ...] = ()

    @staticmethod
    def load(path: Path | None, classes: int) -> ClassLabels:
        """Read a file of labels: line n has the names of class n, separated by commas.

        path: None means no labels. Raises UserError if the file is unreadable, does not have one line per class, or a
        class has no name.
        """
        if path is None:
            return ClassLabels(classes)
        fix = "line n, counted from 0, holds the names of class n, with commas between them"
        text = read_text(path, "a text file of labels", LABEL_BYTES)
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        if len(lines) != classes:
            raise UserError(str(path), expected=f"{classes} lines, one a class", found=str(len(lines)), fix=fix)
        numbers: dict[str, tuple[int, ...]] = {}
        first = []
        for n, line in enumerate(lines):
            names = [name for part in line.split(",") if (name := _plain(part))]
            if not names:
                raise UserError(f"{path}:{n + 1}", expected="a name", found=quoted(line), fix=fix)
            first.append(names[0])
            for name in dict.fromkeys(names):
                numbers[name] = (*numbers.get(name, ()), n)
        return ClassLabels(classes, numbers, tuple(first))

    @property
    def prefix(self) -> int:
        """The prefix length, 1."""
        return 1

    @property
    def features_dim(self) -> int:
        """0, since rows are ids."""
        return 0

    @property
    def padded(self) -> bool:
        """False, since every row has one position."""
        return False

    def encode(self, prompt: str) -> Encoded:
        """Return the class that a prompt names or numbers. Raises UserError if there is none, or more than one."""
        text = some_text(prompt)
        if re.fullmatch(r"[+-]?[0-9]+", text):
            return self._number(text)
        found = self.numbers.get(_plain(text), ())
        if len(found) == 1:
            return Encoded(found)
        if found:
            numbers = " or ".join(str(n) for n in found)
            raise UserError(
                f"class {quoted(text)}", expected="one class", found=f"{len(found)}", fix=f"say which: {numbers}"
            )
        if not self.numbers:
            fix = "set condition.labels to a file of labels in the spec and build again, to use names"
            raise UserError("prompt", expected=f"a class, 0 to {self.classes - 1}", found=quoted(text), fix=fix)
        near = difflib.get_close_matches(_plain(text), self.numbers, n=3)
        fix = f"did you mean {' or '.join(quoted(n) for n in near)}?" if near else "give its number"
        expected = f"a class, 0 to {self.classes - 1}, or a label of one"
        raise UserError("prompt", expected=expected, found=quoted(text), fix=fix)

    def _number(self, text: str) -> Encoded:
        digits = text.lstrip("+-").lstrip("0") or "0"
        small = len(digits) <= len(str(self.classes))  # int() refuses thousands of digits
        if not small or text.startswith("-") or int(digits) >= self.classes:
            expected = f"from 0 to {self.classes - 1}"
            raise UserError("class", expected=expected, found=shorten(text, 24))
        return Encoded((int(digits),))

    def unconditional(self, encoded: Encoded) -> Encoded:
        """Return the id after the last class."""
        return Encoded((self.classes,))

    def samples(self) -> list[str]:
        """Return all labels, or numbers spread over the classes."""
        labels = [name for n, name in enumerate(self.first) if self.numbers[name] == (n,)]
        return labels or [str(n) for n in range(0, self.classes, max(1, self.classes // 16))]

    def release(self) -> None:
        """Do nothing: there is nothing to free."""

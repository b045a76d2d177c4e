"""The class condition: numbers, labels, and which of them are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import ClassLabels, stack

LABELS = "tench, Tinca tinca\ngolden retriever\ncrane\nTabby, tabby_cat\ncrane\n"


@pytest.fixture
def labels(tmp_path: Path) -> ClassLabels:
    (tmp_path / "labels.txt").write_text(LABELS)
    return ClassLabels.load(tmp_path / "labels.txt", 5)


@pytest.mark.parametrize(("prompt", "number"), [("0", 0), (" 7 ", 7), ("007", 7), ("999", 999), ("+3", 3)])
def test_a_number_is_its_class(prompt: str, number: int) -> None:
    assert ClassLabels().encode(prompt).ids == (number,)


def test_the_unconditional_class_is_the_one_after_the_last() -> None:
    rows = stack(ClassLabels(), [ClassLabels().encode("3"), ClassLabels().encode("9")], guided=True)
    assert rows.text.tolist() == [[3], [9], [1000], [1000]]
    assert rows.start.tolist() == [0] * 4


@pytest.mark.parametrize("prompt", ["1000", "-1", "-0", "9" * 5000])
def test_a_number_of_no_class_is_refused(prompt: str) -> None:
    with pytest.raises(UserError, match="class: expected from 0 to 999"):
        ClassLabels().encode(prompt)


@pytest.mark.parametrize("prompt", ["dog", "3.5", "1 2", "³"])
def test_words_need_labels(prompt: str) -> None:
    with pytest.raises(UserError, match=r"a class, 0 to 999, found .*condition.labels"):
        ClassLabels().encode(prompt)


@pytest.mark.parametrize(
    ("prompt", "number"),
    [("tench", 0), ("tinca TINCA", 0), ("Golden_Retriever", 1), ("tabby", 3), ("tabby cat", 3), ("4", 4)],
)
def test_a_label_is_its_class_however_it_is_written(labels: ClassLabels, prompt: str, number: int) -> None:
    assert labels.encode(prompt).ids == (number,)


def test_a_label_of_two_classes_is_asked_back(labels: ClassLabels) -> None:
    with pytest.raises(UserError, match="'crane': expected one class, found 2; say which: 2 or 4"):
        labels.encode("crane")


def test_an_unknown_label_says_what_is_near(labels: ClassLabels) -> None:
    with pytest.raises(UserError, match="did you mean 'golden retriever'"):
        labels.encode("golden retreiver")
    with pytest.raises(UserError, match="give its number"):
        labels.encode("zzz")


def test_samples_can_be_encoded(labels: ClassLabels) -> None:
    assert labels.samples() == ["tench", "golden retriever", "tabby"]  # a label of two classes is no prompt
    for conditioner in (labels, ClassLabels(), ClassLabels(3)):
        assert [conditioner.encode(prompt) for prompt in conditioner.samples()]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\nb\n", "expected 3 lines, one a class, found 2"), ("a\n\nb\n", ":2: expected a name"), ("a\n,\nb", ":2: exp")],
)
def test_a_file_that_is_not_a_line_a_class_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        ClassLabels.load(tmp_path / "labels.txt", 3)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="a text file of labels"):
        ClassLabels.load(tmp_path / "labels.txt", 3)
    with pytest.raises(UserError, match="a text file of labels"):
        ClassLabels.load(tmp_path / "none.txt", 3)


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
def test_a_file_of_labels_is_a_plain_file(tmp_path: Path, what: str) -> None:
    path = Path("/dev/zero") if what == "device" else tmp_path / "labels.txt"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=f"expected a text file of labels, found a .*{what}"):
        ClassLabels.load(path, 3)


def test_only_a_line_feed_ends_a_label(tmp_path: Path) -> None:
    """Others, such as a form feed, would move all numbers after them by one."""
    (tmp_path / "labels.txt").write_bytes("\ufefftench\r\ngolden\x0cretriever\r\ncrane\u2028bird\r\n".encode())
    labels = ClassLabels.load(tmp_path / "labels.txt", 3)
    assert [labels.encode(name).ids for name in ("tench", "Golden Retriever", "crane bird")] == [(0,), (1,), (2,)]

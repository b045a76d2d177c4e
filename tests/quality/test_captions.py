"""Captions and references by id: formats, names of files, and every way in which the two can disagree."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.quality.captions import canonical, read_prompts, read_references, seed_offset
from tests.quality.qualities import CAPTIONS, coco, write_captions, write_references


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(139, "139"), ("000000000139", "139"), ("COCO_val2014_000000000139", "139"), ("0", "0"), ("000", "0"),
     ("a-1", "a-1"), ("COCO_a", "COCO_a"), ("val_000012", "val_000012")],
)  # fmt: skip
def test_one_name_for_an_id(name: int | str, wanted: str) -> None:
    assert canonical(name) == wanted


def test_both_formats_in_any_order_are_the_same_captions(tmp_path: Path) -> None:
    path, wanted = tmp_path / "captions.json", list(CAPTIONS.items())
    assert list(read_prompts(write_captions(path)).items()) == wanted
    assert list(read_prompts(write_captions(path, reverse=True)).items()) == wanted
    data = coco()
    for seed in range(3):
        random.Random(seed).shuffle(data["images"])
        random.Random(seed).shuffle(data["annotations"])
        path.write_text(json.dumps(data))
        assert list(read_prompts(path).items()) == wanted
    path.write_text(json.dumps([{"id": "b", "caption": " x "}, {"id": 10, "caption": "y"}, {"id": 9, "caption": "z"}]))
    assert read_prompts(path) == {"9": "z", "10": "y", "b": "x"}
    assert list(read_prompts(path)) == ["9", "10", "b"]


def test_the_seed_of_an_id_needs_no_order() -> None:
    assert seed_offset("139") == 139
    assert seed_offset("a") != seed_offset("b")
    assert 0 <= seed_offset("a") < 2**63


def broken(key: str, index: int, **values: Any) -> Any:
    data = coco()
    data[key][index].update(values)
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "expected at least one caption, found none"),
        ("[", "expected JSON.*found text that is not JSON"),
        (["red"], 'expected a list of {"id", "caption"}, or COCO'),
        ([{"id": 1, "caption": "a", "more": 2}], "found 0.more"),
        ([{"id": -1, "caption": "a"}], "expected a list of"),
        ([{"id": "../a", "caption": "a"}], "expected a list of"),
        ([{"id": 1, "caption": " "}, {"id": 2, "caption": "b"}], "expected a caption of every id, found nothing for 1"),
        ([{"id": 1, "caption": "a"}, {"id": 1, "caption": "b"}], "every id once, found 1 as 1 and 1"),
        ([{"id": 1, "caption": "a"}, {"id": "001", "caption": "b"}], "every id once, found 1 as 1 and 001"),
        ({"images": []}, "annotations: Field required"),
        (broken("images", 0, id=140), "expected captions of its images, found of 139"),
        ({**coco(), "annotations": coco()["annotations"][3:]}, "a caption of every image, found none of 1000"),
        (broken("images", 0, id=285), "images: expected every id once, found 285 as 285 and 285"),
    ],
)
def test_files_that_are_no_captions(tmp_path: Path, data: Any, said: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(UserError, match=said):
        read_prompts(path)


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no such file"):
        read_prompts(tmp_path / "captions.json")


def test_references_by_id_under_any_of_cocos_names(tmp_path: Path) -> None:
    folder = write_references(tmp_path / "refs")
    (folder / "000000000285.png").rename(folder / "285.PNG")
    (folder / "000000000632.png").rename(folder / "COCO_val2014_000000000632.png")
    (folder / "readme.txt").touch()
    found = read_references(folder, CAPTIONS)
    assert list(found) == list(CAPTIONS)
    assert [canonical(path.stem) for path in found.values()] == list(CAPTIONS)


@pytest.mark.parametrize(
    ("remove", "add", "said"),
    [
        (["139", "285", "632", "724"], [], r"the 5 ids, found 4 missing \(139, 285, 632 and 1 more\); make a folder"),
        ([], ["7", "8"], r"found 2 that no prompt has \(000000000007.png, 000000000008.png\)"),
        (["139"], ["140"], r"found 1 missing \(139\) and 1 that no prompt has \(000000000140.png\)"),
        (list(CAPTIONS), [], "expected images .* named by their ids, found none"),
    ],
)
def test_missing_and_surplus_references(tmp_path: Path, remove: list[str], add: list[str], said: str) -> None:
    folder = write_references(tmp_path / "refs", [*CAPTIONS, *add])
    for name in remove:
        (folder / f"{int(name):012d}.png").unlink()
    with pytest.raises(UserError, match=said):
        read_references(folder, CAPTIONS)


def test_two_files_of_one_id_and_no_folder(tmp_path: Path) -> None:
    folder = write_references(tmp_path / "refs")
    (folder / "139.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"every id once, found 139 as 000000000139.png and 139.jpg"):
        read_references(folder, CAPTIONS)
    with pytest.raises(UserError, match=r"expected a folder of reference images.*found nothing"):
        read_references(tmp_path / "none", CAPTIONS)

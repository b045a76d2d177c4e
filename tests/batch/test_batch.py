"""Long jobs as users run them: each row's image is that of `generate`, after kills too, and nothing else happens."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.generate.identity import PIXELS, Identity, said_by, sha256_pixels
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.png import read_pixels
from tests.batch.batching import batch, digests, files, plain_rows, start, write_jsonl

MANUAL = ("--pacing", "manual", "--draft-length", 2)


@pytest.fixture(scope="module")
def engine(tiny_engine: EngineFolder) -> Path:
    return tiny_engine.folder


def test_each_row_is_the_image_of_generate(engine: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "red apple"},
        {"prompt": "rocket", "seed": 7, "id": "own seed", "guidance_scale": 2.0},
        {"prompt": "rocket", "plain": True},
        {"prompt": "rocket", "draft": "jacobi", "draft_length": 3, "pacing": "manual"},
        {"prompt": "penguin", "schedule": {"kind": "uniform", "delta": 1.2}, "draft_length": 3},
        {"prompt": "penguin", "schedule": "none"},
    ]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    words = ("--seed", 40, "--cfg-scale", 1.5, "--schedule", "uniform", "--delta", 1.1)
    done = batch(engine, path, "--out", tmp_path / "out", *words, *MANUAL, "--json")
    assert done.code == 0, done.err
    assert {key: done.document[key] for key in ("rows", "images", "failed", "plan")} == {
        "rows": 6, "images": 6, "failed": 0, "plan": None,
    }  # fmt: skip
    ours: dict[str, Any] = {"sampling.cfg_scale": 1.5, "pacing.kind": "manual"}
    base = {**ours, "schedule.kind": "uniform", "schedule.delta": 1.1}
    same: list[GenerateConfig] = [
        GenerateConfig(["red apple"], seed=40, overrides=base, draft_length=2),
        GenerateConfig(["rocket"], seed=7, overrides={**base, "sampling.cfg_scale": 2.0}, draft_length=2),
        GenerateConfig(["rocket"], seed=42, overrides={"sampling.cfg_scale": 1.5}, plain=True),
        GenerateConfig(["rocket"], seed=43, overrides=base, draft="jacobi", draft_length=3),
        GenerateConfig(["penguin"], seed=44, overrides={**base, "schedule.delta": 1.2}, draft_length=3),
        GenerateConfig(["penguin"], seed=45, overrides={**ours, "schedule.kind": "none"}, draft_length=2),
    ]
    names = ["row-0000000", "own seed", *(f"row-{k:07d}" for k in range(2, 6))]
    for k, (name, request) in enumerate(zip(names, same, strict=True)):
        drawn = generate(engine, GenerateConfig(**{**vars(request), "out": tmp_path / str(k)})).drawn[0].path
        found = tmp_path / "out/images/00000" / f"{name}.png"
        assert Identity.of(said_by(found)) == Identity.of(said_by(drawn)), name
        assert (read_pixels(found) == read_pixels(drawn)).all(), name


def test_images_after_three_kills_are_those_of_an_undisturbed_run(engine: Path, tmp_path: Path) -> None:
    """Each kill comes at any moment, some tens of images after the one before it."""
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(400))
    words = (engine, path, "--threads", 1, "--slots", 8, *MANUAL)
    whole = batch(*words, "--out", tmp_path / "whole", "--json")
    assert whole.code == 0, whole.err
    dice, drawn = random.Random(3), [0]
    while len(drawn) < 4:
        process = start(*words, "--out", tmp_path / "killed")
        wanted = drawn[-1] + dice.randint(20, 70)
        while len(list(tmp_path.glob("killed/images/[!.]*/*.png"))) < wanted:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(dice.uniform(0, 0.02))
        process.kill()
        process.communicate()
        drawn.append(len(digests(tmp_path / "killed")))
        assert drawn[-1] < 400
    last = batch(*words, "--out", tmp_path / "killed", "--json")
    assert last.code == 0, last.err
    assert (last.document["images"], last.document["rows"]) == (400, 400)
    assert last.document["drawn"] <= 400 - drawn[-1]  # no finished image is drawn again
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    for path in (tmp_path / "killed/images").rglob("*.png"):
        assert sha256_pixels(read_pixels(path)) == said_by(path)[PIXELS]


def test_parquet_has_the_images_of_png_and_where_they_come_from(engine: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [*plain_rows(23), {"prompt": "rocket", "top_k": -1}]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    words = (engine, path, "--part-rows", 10, *MANUAL)
    assert batch(*words, "--out", tmp_path / "png").code == 0
    process = start(*words, "--out", tmp_path / "table", "--format", "parquet")
    while not list(tmp_path.glob("table/images/.00001/*.png")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert batch(*words, "--out", tmp_path / "table", "--format", "parquet").code == 0
    assert sorted(p.name for p in (tmp_path / "table/images").iterdir()) == [f"{k:05d}.parquet" for k in range(3)]
    found = pq.read_table(tmp_path / "table/images").to_pylist()
    assert [row["row"] for row in found] == list(range(23))
    pngs = {p.stem: p for p in (tmp_path / "png/images").rglob("*.png")}
    assert len(pngs) == 23
    for row in found:
        png = pngs[row["id"]]
        assert row["image"] == png.read_bytes()
        assert row["pixels_sha256"] == said_by(png)[PIXELS]
        assert json.loads(row["provenance"]) == said_by(png)
        Image.open(io.BytesIO(row["image"])).verify()
    columns = ("prompt", "seed", "plain", "draft_length", "temperature", "top_k")
    assert {key: found[14][key] for key in columns} == {
        "prompt": "penguin", "seed": 14, "plain": True, "draft_length": 0, "temperature": 0.7, "top_k": 5,
    }  # fmt: skip
    assert (found[1]["draft"], found[1]["draft_length"], found[1]["plain"]) == ("eagle", 2, False)


def test_shards_fill_one_folder_and_pacing_auto_has_one_plan(engine: Path, tmp_path: Path) -> None:
    rows: list[Any] = [*plain_rows(30), "{", {"prompt": "rocket", "seed": -1}]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    words = (engine, path, "--part-rows", 5, "--threads", 1, "--pacing", "auto", "--out", tmp_path / "out", "--json")
    environment = [{"COOLSD_CACHE": str(tmp_path / f"cache{k}")} for k in range(3)]  # three machines
    shards = [start(*words, "--shard", f"{k + 1}/3", environment=environment[k]) for k in range(3)]
    for shard in shards:
        _, err = shard.communicate(timeout=300)
        assert shard.returncode == 0, err
    assert sorted(p.name for p in tmp_path.glob("out/failed*")) == ["failed-1-of-3.jsonl"]
    lines = (tmp_path / "out/failed-1-of-3.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in lines] == ["line 31", "line 32"]
    done = batch(*words, environment=environment[0])
    assert {key: done.document[key] for key in ("images", "drawn", "failed")} == {"images": 30, "drawn": 0, "failed": 2}
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    drawn = [said_by(p) for p in tmp_path.glob("out/images/*/*.png")]
    paced = [one for one in drawn if not one["law"]["plain"] and one["spec"]["sampling"]["temperature"] != 0.7]
    assert len(paced) > 20
    assert all(one["plan"] == plan for one in paced)
    # Kept in the folder: another machine, whose own choice might be another, draws the same images.
    before = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/images/00003")
    (tmp_path / "out/parts/00003.json").unlink()
    assert batch(*words, environment={"COOLSD_CACHE": str(tmp_path / "elsewhere")}).document["drawn"] == 5
    assert files(tmp_path / "out") == before
    # And it is that file which counts, not what this machine would choose.
    (tmp_path / "out/plan.json").write_text(json.dumps({"draft": None, "draft_length": 0}))
    shutil.rmtree(tmp_path / "out/images/00000")
    (tmp_path / "out/parts/00000.json").unlink()
    assert batch(*words).document["drawn"] == 5
    generate(engine, GenerateConfig(["rocket"], tmp_path / "one", seed=1, plain=True))
    drawn_plainly = read_pixels(tmp_path / "one/000-rocket.png")
    assert (read_pixels(tmp_path / "out/images/00000/image 1.png") == drawn_plainly).all()
    (tmp_path / "out/plan.json").write_text(json.dumps({"draft": "eagle", "draft_length": 2}))
    shutil.rmtree(tmp_path / "out/images/00000")
    (tmp_path / "out/parts/00000.json").unlink()
    assert batch(*words).document["drawn"] == 5
    assert (read_pixels(tmp_path / "out/images/00000/image 1.png") != drawn_plainly).any()


def test_failed_rows_stand_in_a_file_and_do_not_stop_the_rest(engine: Path, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"prompt": "rocket"}, "no json", {"prompt": "x " * 5000, "id": "long"}, {"prompt": "rocket", "sed": 3},
        {"prompt": "rocket", "acceptance": {"rule": "lantern", "neighbours": 4096, "bound": 0.1}},
        {"prompt": "rocket", "plain": True, "draft_length": 3}, {"prompt": "penguin", "id": "../../up"},
    ]  # fmt: skip
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    for _ in range(2):  # the second run draws nothing, and says the same
        done = batch(engine, path, "--out", tmp_path / "out", *MANUAL, "--json")
        assert done.code == 0, done.err
        failed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
        assert [one["place"] for one in failed] == ["line 2", "line 3", "line 4", "line 5", "line 6"]
        assert failed[1]["id"] == "long"
        assert "did you mean 'seed'?" in failed[2]["problem"]
        assert all(len(one["problem"].splitlines()) == 1 for one in failed)
        assert (done.document["images"], done.document["failed"]) == (2, 5)
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["%2E.%2F..%2Fup.png", "row-0000000.png"]


@pytest.mark.parametrize("bad", [{"prompt": "x " * 5000}, {"prompt": ""}])
def test_rows_that_fail_first_do_not_stop_the_choice_of_a_plan(
    engine: Path, tmp_path: Path, bad: dict[str, Any]
) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [*[bad] * 30, {"prompt": "rocket"}])
    fresh = {"COOLSD_CACHE": str(tmp_path / "cache")}  # a machine without a plan on record
    done = batch(engine, path, "--out", tmp_path / "out", "--pacing", "auto", "--json", environment=fresh)
    assert done.code == 0, done.err
    assert (done.document["images"], done.document["failed"]) == (1, 30)
    assert (tmp_path / "out/plan.json").is_file()


def test_another_job_and_a_running_one_are_refused(engine: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(400))
    words = (engine, path, "--out", tmp_path / "out", *MANUAL)
    first = start(*words)
    while not list(tmp_path.glob("out/images/*/*.png")):
        assert first.poll() is None
        time.sleep(0.01)
    second = batch(*words)
    assert second.code == 2
    assert "draws the same shard" in second.err
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "images are complete" in err
    before = files(tmp_path / "out")
    for more in (("--seed", 3), ("--format", "parquet"), ("--part-rows", 7), ("--temperature", 0.5)):
        other = batch(*words, *more)
        assert other.code == 2, more
        assert "name another folder" in other.err
    write_jsonl(path, plain_rows(401))
    assert "prompts" in batch(*words).err
    assert files(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("words")
    assert batch(engine, path, "--out", tmp_path / "mine").code == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_image_of_something_else_is_not_replaced(engine: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(4))
    words = (engine, path, "--out", tmp_path / "out", *MANUAL)
    assert batch(*words).code == 0
    (tmp_path / "out/parts/00000.json").unlink()
    images = tmp_path / "out/images/00000"
    (images / "image 1.png").write_bytes((images / "image 1.png").read_bytes()[:-30])  # cut off: is drawn again
    assert batch(*words, "--json").document["drawn"] == 1
    (tmp_path / "out/parts/00000.json").unlink()
    shutil.copy(images / "image 0.png", images / "image 2.png")
    done = batch(*words)
    assert done.code == 2
    assert "image 2.png" in done.err
    assert (images / "image 2.png").read_bytes() == (images / "image 0.png").read_bytes()


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"draft": "eagle", "draft_length": 0}'])
def test_a_plan_that_is_none_is_one_line_with_its_file(engine: Path, tmp_path: Path, text: str) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(2))
    words = (engine, path, "--out", tmp_path / "out", "--pacing", "auto")
    assert batch(*words).code == 0
    (tmp_path / "out/plan.json").write_text(text)
    done = batch(*words)
    assert done.code == 1
    assert "plan.json: expected the plan that this job's images draft by" in done.err
    assert "unexpected" not in done.err


def test_failed_rows_stand_in_the_order_of_the_prompts_file(tmp_path: Path) -> None:
    from coolsd_rt.batch.failed_file import FailedFile
    from coolsd_rt.batch.part import WHOLE, FailedRow

    file = FailedFile(tmp_path, WHOLE)
    file.known = [FailedRow(5, "line 6", None, "why")]
    with file.open() as write:
        write([FailedRow(9, "line 10", None, "why")])
        write([FailedRow(2, "line 3", None, "why")])  # the part of another worker, finished later
    assert [json.loads(line)["row"] for line in file.path.read_text().splitlines()] == [2, 5, 9]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--shard", "0/2"), "0/2"), (("--shard", "3/2"), "3/2"), (("--shard", "x"), "x"), (("--part-rows", 0), "0"),
        (("--workers", 2), "--ray"), (("--top-k", -1), "-1"), (("--plain", "--draft-length", 3), "a draft length"),
    ],
)  # fmt: skip
def test_wrong_options_leave_nothing(engine: Path, tmp_path: Path, words: tuple[object, ...], found: str) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", plain_rows(2))
    done = batch(engine, path, "--out", tmp_path / "out", *words)
    assert done.code == 2
    assert found in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()

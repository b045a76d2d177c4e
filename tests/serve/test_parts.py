"""Parts of the server by themselves: messages that wait, memory, the log, requests as they are read."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from coolsd_rt.serve.api_errors import ApiError
from coolsd_rt.serve.drawer import Draw
from coolsd_rt.serve.image_request import GenerationRequest, read_request
from coolsd_rt.serve.log_lines import LogLines
from coolsd_rt.serve.memory import available_memory
from coolsd_rt.serve.messages import FinalMessage, PartialMessage, ProgressMessage, pack, unpack
from coolsd_rt.workflows.call_options import DrawOptions
from coolsd_rt.workflows.image_options import OPTIONS


def test_messages_keep_every_byte() -> None:
    message = FinalMessage(7, {"seed": 2**64 - 1, "tokens_per_second": None}, {"prompt": "é\n"}, ["a"], 3, 2, bytes(12))
    assert unpack(pack(message)) == message
    with pytest.raises(ValueError, match="JSON"):
        pack(ProgressMessage(1, 1, [], [], float("nan")))


def test_a_slow_reader_costs_one_message_of_progress() -> None:
    async def read() -> list[object]:
        draw = Draw(1)
        for k in range(5):
            draw.put(ProgressMessage(1, k, [k], [k + 1], float(k)))
        draw.put(PartialMessage(1, 2, 1, b"abc"))
        draw.put(ProgressMessage(1, 9, [9], [9], 9.0))
        return [await draw.next() for _ in range(3)]

    first, partial, last = asyncio.run(read())
    assert first == ProgressMessage(1, 4, [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], 4.0)
    assert (partial, last) == (PartialMessage(1, 2, 1, b"abc"), ProgressMessage(1, 9, [9], [9], 9.0))


@pytest.mark.parametrize(
    ("files", "bytes_left"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    100 kB\n"}, 102_400),
        ({"proc/meminfo": "MemAvailable: lots kB\n"}, None),
        (
            {
                "proc/meminfo": "MemAvailable: 100 kB\n",
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "90000\n",
                "sys/fs/cgroup/a/memory.current": "20000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.current": "10\n",
            },
            70_000,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "5", "sys/fs/cgroup/memory.current": "9"}, 0),
    ],
)
def test_the_memory_that_is_left(tmp_path: Path, files: dict[str, str], bytes_left: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_memory(tmp_path) == bytes_left


def test_whoever_logs_never_waits() -> None:
    go, lines = threading.Event(), list[str]()

    def say(line: str) -> None:
        go.wait(60)
        lines.append(line)

    log = LogLines(say, as_json=True)
    for k in range(20_000):
        log.info("event", k=k)
    go.set()
    log.close()
    assert 10_000 <= len(lines) <= 10_003
    assert any("lines of the log were dropped" in line for line in lines)
    assert json.loads(lines[0])["k"] == 0


def test_a_failure_is_one_line_of_json_and_several_of_text() -> None:
    for as_json, count in ((True, 1), (False, 2)):
        lines = list[str]()
        log = LogLines(lines.append, as_json)
        log.failure("it failed", ValueError("of this"))
        log.close()
        assert len(lines) >= count
        assert (len(lines) == 1) is as_json
        assert "of this" in lines[-1]


def test_requests_have_the_options_of_the_pipeline() -> None:
    ours = {"images_per_prompt", "num_images_per_prompt", "seed", "seeds", "loop", "max_tokens", "system", "raw"}
    assert set(OPTIONS) == set(DrawOptions.__annotations__) - ours
    assert set(OPTIONS) <= set(GenerationRequest.model_fields)


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        ({"delta": 1.2}, {"delta": 1.2}),
        ({"delta": 1.2, "schedule": "linear"}, {"kind": "linear", "delta": 1.2}),
        ({"delta": 1.2, "schedule": {"nu": 0.5}}, {"nu": 0.5, "delta": 1.2}),
    ],
)
def test_delta_is_short_for_a_schedule(given: dict[str, object], schedule: dict[str, object]) -> None:
    request = read_request(json.dumps({"prompt": "red", **given}).encode())
    assert request.options(3) == {"schedule": schedule, "seed": 3}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("num_inference_steps", "there are no denoising steps"),
        ("cfg_scale", "the option is named guidance_scale"),
        ("temprature", "did you mean 'temperature'?"),
    ],
)
def test_an_unknown_field_says_what_was_meant(name: str, said: str) -> None:
    with pytest.raises(ApiError) as error:
        read_request(json.dumps({"prompt": "red", name: 1}).encode())
    assert (error.value.status, error.value.param) == (400, name)
    assert said in error.value.message


def test_a_random_seed_is_another_one_each_time() -> None:
    request = read_request(b'{"prompt": "red"}')
    assert len({request.first_seed() for _ in range(20)}) == 20
    assert read_request(b'{"prompt": "red", "seed": 0}').first_seed() == 0

"""Wrong requests for texts are one clear message each; a full queue, deadlines and clients that leave."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coolsd_rt.cli.main import run
from coolsd_rt.serve.text_request import ChatRequest, CompletionRequest
from coolsd_rt.store import EngineFolder
from tests.serve.conftest import Start
from tests.serve.serving import CHATS, COMPLETIONS, PATIENCE, RunningServer
from tests.serve.test_lifecycle import code, stopped
from tests.serve.test_requests import BODIES, JSON, error_of
from tests.workflows.family_pipelines import TEXT_W

USER = {"role": "user", "content": "red apple"}
DEEP_PART = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("wrong", "param", "said"),
    [
        ({"messages": None}, "messages", "messages: expected a list of messages, found null"),
        ({"messages": []}, "messages", "messages: expected a list of messages, found []"),
        ({"messages": ["red"]}, "messages", "messages[0]: expected a message"),
        (
            {"messages": [USER, {"role": "tool", "content": "red"}]},
            "messages",
            "messages[1].role: expected one of system",
        ),
        ({"messages": [{"role": "user"}]}, "messages", "messages[0].content: expected a text"),
        ({"messages": [{**USER, "name": "me"}]}, "messages", "messages[0].name: expected role and content alone"),
        ({"messages": [{**USER, "content": [DEEP_PART]}]}, "messages", 'found a part of the type "image_url"'),
        ({"messages": [{**USER, "content": "<s>"}]}, "messages", "no control tokens of the target"),
        (
            {"messages": [{**USER, "content": "red " * 200}]},
            "messages",
            f"prompt too long: expected at most {TEXT_W} tokens",
        ),
        ({"messages": [{**USER, "content": "\ud800"}]}, None, "half of a surrogate pair"),
        ({"max_tokens": 17}, "max_tokens", "expected at most 16, the text.length of the engine, found 17"),
        ({"max_completion_tokens": 17}, "max_completion_tokens", "expected at most 16"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "found both"),
        ({"max_tokens": 0}, "max_tokens", "expected a whole number from 1 to 65536"),
        ({"n": 11}, "n", "expected a whole number from 1 to 10"),
        ({"temperature": -1}, "temperature", "expected a number from 0 to 1000"),
        ({"stop": list("abcde")}, "stop", "expected at most 4 strings, found 5"),
        ({"stop": ""}, "stop", "expected strings of 1 to 1024 characters"),
        ({"stop": [1]}, "stop", "expected strings of 1 to 1024 characters, found 1"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "expected a stream"),
        ({"logprobs": True}, "logprobs", "this server does not have it"),
        ({"top_logprobs": 5}, "top_logprobs", "this server does not have it"),
        ({"tools": [{}]}, "tools", "this server does not have it"),
        ({"response_format": {"type": "json_object"}}, "response_format", "this server does not have it"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "this server does not have it"),
        ({"temprature": 1}, "temprature", "did you mean 'temperature'?"),
        ({"draft_length": 17}, "draft_length", "expected at most the text's 16 tokens"),
        ({"plain": True, "draft_length": 2}, "plain", "expected no draft"),
        ({"timeout": 301}, "timeout", "expected at most the server's 300 seconds"),
    ],
)
def test_a_wrong_chat_is_one_message(
    text_server: RunningServer, wrong: dict[str, Any], param: str | None, said: str
) -> None:
    body = json.dumps({"messages": [USER], **wrong}).encode()
    for stream in (b"", b', "stream": true') if "stream_options" not in wrong else (b"",):
        error = error_of(text_server.http.post(CHATS, content=body[:-1] + stream + b"}", headers=JSON), 400)
        assert said in error.message
        assert error.param == param
        assert len(error.message) < 600


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": None}, "prompt: expected a text, token ids, or a list of them, found null"),
        ({"prompt": []}, "found []"),
        ({"prompt": [1, "red"]}, "prompt[0]: expected a text or token ids, found 1"),
        ({"prompt": ["red", [1]]}, "found both in one list"),
        ({"prompt": [True]}, "prompt[0]: expected a text or token ids"),
        ({"prompt": [-1]}, "prompt: expected token ids from 0 to "),
        ({"prompt": [1 << 19]}, "prompt: expected token ids from 0 to "),
        ({"prompt": [1] * (TEXT_W + 1)}, f"expected at most {TEXT_W} tokens, found {TEXT_W + 1}"),
        ({"prompt": ["red"] * 65}, "expected at most 64 of them, found 65"),
        ({"prompt": ["red", "red " * 200]}, f"expected at most {TEXT_W} tokens"),
        ({"echo": True}, "this server does not have it"),
        ({"logprobs": 2}, "this server does not have it"),
        ({"best_of": 2}, "this server does not have it"),
        ({"messages": [USER]}, "expected an option of this call"),
    ],
)
def test_a_wrong_completion_is_one_message(text_server: RunningServer, wrong: dict[str, Any], said: str) -> None:
    assert said in error_of(text_server.continue_(**wrong), 400).message


def test_values_that_change_nothing_are_taken(text_server: RunningServer) -> None:
    both: dict[str, Any] = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "user": "me"}
    chat: dict[str, Any] = {
        "logprobs": False,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "store": False,
    }
    more: dict[str, Any] = {
        "top_logprobs": None,
        "modalities": ["text"],
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "n": None,
    }
    assert text_server.chat(**both, **chat, **more).status_code == 200
    alone: dict[str, Any] = {"logprobs": None, "echo": False, "best_of": 1, "suffix": "", "stop": None}
    assert text_server.continue_(**both, **alone).status_code == 200


@pytest.mark.parametrize("path", [CHATS, COMPLETIONS])
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_400(text_server: RunningServer, path: str, name: str) -> None:
    if path == COMPLETIONS and name in ("a list of prompts", "empty", "NUL"):
        return  # these are texts
    error = error_of(text_server.http.post(path, content=BODIES[name], headers=JSON), 400)
    assert "expected" in error.message
    assert len(error.message) < 1000
    assert "site-packages" not in error.message


NAMES = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields, "role", "content", "type", "text"})


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([CHATS, COMPLETIONS]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("user"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
        max_leaves=8,
    ),
)
def test_no_body_is_a_500(text_server: RunningServer, path: str, data: Any) -> None:
    for body in (data, {"prompt": "red", "messages": [USER], **data} if isinstance(data, dict) else [data]):
        answer = text_server.http.post(path, content=json.dumps(body).encode(), headers=JSON)
        assert answer.status_code in (200, 400, 404), answer.text
        if answer.status_code != 200:
            error_of(answer, answer.status_code)


def test_schemathesis_finds_nothing(text_server: RunningServer) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(f"{text_server.url}/openapi.json")
    # Which fields exclude each other, and how long a prompt may be, no schema can say.
    wanted = [check for check in checks.CHECKS.get_all() if check.__name__ != "positive_data_acceptance"]
    seen = 0
    for path in (CHATS, COMPLETIONS):

        @settings(max_examples=25, suppress_health_check=list(HealthCheck), database=None, deadline=None)
        @given(schema[path]["POST"].as_strategy())
        def ask(case: Any) -> None:
            nonlocal seen
            seen += 1
            if isinstance(case.body, dict):
                case.body.pop("timeout", None)  # a short one is a 504
            case.call_and_validate(checks=wanted)

        ask()
    assert seen >= 50


def test_a_full_queue_and_a_deadline(start: Start, text_engines: list[EngineFolder]) -> None:
    server = start("--slots", 1, "--queue", 3, engine=text_engines[0].folder)
    assert server.chat(n=4).status_code == 200
    assert error_of(server.chat(n=5), 400).param == "n"
    with stopped(server), ThreadPoolExecutor(1) as pool:
        waits = pool.submit(server.chat, n=3, timeout=5)
        server.wait_for(lambda: server.busy() == 3)
        full = server.chat(n=2)
        assert (full.status_code, code(full)) == (429, "queue_full")
        assert int(full.headers["retry-after"]) >= 1
        assert code(waits.result()) == "deadline_exceeded"
        assert server.busy() == 0
    assert server.metric("texts_total", finished_reason="abort") == 3
    assert server.chat(n=4).status_code == 200


def test_a_client_that_leaves_frees_its_slots(start: Start, text_engines: list[EngineFolder]) -> None:
    server = start("--slots", 1, "--queue", 100, engine=text_engines[0].folder)

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            bodies = [{"messages": [USER], "n": 3, "stream": stream} for stream in (True, False)]
            tasks = [asyncio.create_task(http.post(CHATS, json=body)) for body in bodies * 2]
            while server.busy() < 12:
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.2)  # streams have begun
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with stopped(server):
        asyncio.run(leave())
        server.wait_for(lambda: server.busy() == 0)
        assert server.metric("texts_total", finished_reason="abort") == 12
    assert server.chat(seed=1).status_code == 200
    assert server.metric("texts_total") - server.metric("texts_total", finished_reason="abort") == 1


def test_ray_takes_no_engine_that_writes_text(
    text_engines: list[EngineFolder], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    assert run(["serve", str(text_engines[0].folder), "--ray"]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert "expected an engine that draws images, found one that writes text; serve it without --ray" in err

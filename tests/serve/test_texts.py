"""Texts by the `openai` package: the same text streamed, whole and by the pipeline; stop strings, limits, figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coolsd_rt import Pipeline
from coolsd_rt.serve.answers import ModelsAnswer
from coolsd_rt.serve.text_answers import ChatAnswer, CompletionAnswer
from tests.serve.serving import CHATS, COMPLETIONS, IMAGES, RunningServer
from tests.serve.test_requests import error_of

openai = pytest.importorskip("openai")
USER = [{"role": "user", "content": "red apple"}]
VARIED: dict[str, Any] = {"temperature": 1000.0, "top_k": 0}  # all words are as probable
LENGTH, PREFIX = 16, 24


@pytest.fixture(scope="module")
def api(text_server: RunningServer) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{text_server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def streamed(events: Any) -> list[str]:
    """The text of each choice of a chat's stream, or a completion's."""
    texts: dict[int, str] = {}
    for event in events:
        for one in event.choices:
            new = one.delta.content if hasattr(one, "delta") else one.text
            texts[one.index] = texts.get(one.index, "") + (new or "")
    return [texts[index] for index in sorted(texts)]


@pytest.mark.parametrize(
    "ours",
    [
        {},
        VARIED,
        {"plain": True, **VARIED},
        {"temperature": 0.0, "schedule": "none"},
        {"delta": 1.5, **VARIED},
        {"draft": "jacobi", "draft_length": 2, **VARIED},
        {"top_p": 0.5, "temperature": 3.0, "max_tokens": 5},
    ],
    ids=str,
)
def test_a_text_is_the_same_by_every_way(api: Any, text_pipe: Pipeline, ours: dict[str, Any]) -> None:
    given = {key: value for key, value in ours.items() if key != "delta"}
    if "delta" in ours:
        given["schedule"] = {"delta": ours["delta"]}
    for raw in (False, True):
        make = api.completions.create if raw else api.chat.completions.create
        asked: dict[str, Any] = {"prompt": "red apple"} if raw else {"messages": USER}
        asked |= {"model": "writer", "n": 3, "seed": 7, "extra_body": ours}
        wanted = text_pipe("red apple", seed=7, images_per_prompt=3, raw=raw, **given)
        answer = make(**asked)
        texts = [one.text if raw else one.message.content for one in answer.choices]
        assert texts == wanted.texts
        assert streamed(make(**asked, stream=True)) == wanted.texts
        assert [one.finish_reason for one in answer.choices] == [one.reason for one in wanted.written]
        assert [one["tokens"] for one in answer.coolsd["texts"]] == [len(one.ids) for one in wanted.written]
        assert [one["seed"] for one in answer.coolsd["texts"]] == [7, 8, 9]
        assert answer.usage.completion_tokens == sum(len(one.ids) for one in wanted.written)
        assert answer.usage.prompt_tokens == len(wanted.written[0].job.encoded.ids)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_with_a_system_message_in_parts(api: Any, text_pipe: Pipeline) -> None:
    parts = [{"type": "text", "text": "red "}, {"type": "text", "text": "apple"}]
    chat = [{"role": "system", "content": "blue star"}, {"role": "user", "content": parts}]
    answer = api.chat.completions.create(model="writer", messages=chat, seed=2**64 - 1, extra_body=VARIED)
    wanted = text_pipe("red apple", system="blue star", seed=2**64 - 1, **VARIED)
    assert answer.choices[0].message.content == wanted.text
    assert answer.choices[0].message.role == "assistant"
    again = [*chat, answer.choices[0].message.model_dump(), {"role": "user", "content": "star"}]
    assert api.chat.completions.create(model="writer", messages=again, max_tokens=2).usage.prompt_tokens > 8


def test_a_stop_string_ends_a_text_by_every_way(api: Any, text_pipe: Pipeline) -> None:
    """Stops that lie in a word, across words, and at an end that is held back."""
    seen = set()
    for seed in range(6):
        whole = text_pipe("red", raw=True, seed=seed, **VARIED).written[0]
        words = whole.text.split()
        if len(words) < 6:
            continue
        place = len(" ".join(words[:3])) + 1
        for stop in (words[3], whole.text[place - 2 : place + 1], [whole.text[-3:], words[4][:2]], "never"):
            stops = [stop] if isinstance(stop, str) else stop
            ends = [whole.text.index(one) + len(one) for one in stops if one in whole.text]
            cut = min((whole.text.index(one) for one in stops if one in whole.text), default=len(whole.text))
            asked = {"model": "writer", "prompt": "red", "seed": seed, "stop": stop, "extra_body": VARIED}
            answer = api.completions.create(**asked)
            text = answer.choices[0].text
            assert whole.text.startswith(text)
            if len(stops) == 1:
                assert text == whole.text[:cut]
            assert streamed(api.completions.create(**asked, stream=True)) == [text]
            assert answer.choices[0].finish_reason == ("stop" if ends else whole.reason)
            tokens = answer.usage.completion_tokens
            assert (tokens < len(whole.ids)) if ends and min(ends) < len(whole.text) - 8 else tokens <= len(whole.ids)
            seen.add(bool(ends))
    assert seen == {True, False}


def test_the_events_of_a_stream(text_server: RunningServer) -> None:
    usage = {"stream_options": {"include_usage": True}, "seed": 1, "temperature": 1000.0, "top_k": 0}
    first, *parts, last, tokens, done = text_server.events(CHATS, messages=USER, **usage)
    assert done == {}
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert parts
    assert all(part["choices"][0]["delta"]["content"] and part["usage"] is None for part in parts)
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert (last["choices"][0]["delta"], tokens["choices"]) == ({}, [])
    assert tokens["usage"]["completion_tokens"] == last["coolsd"]["tokens"]
    assert {event["object"] for event in (first, *parts, last, tokens)} == {"chat.completion.chunk"}
    assert len({event["id"] for event in (first, *parts, last, tokens)}) == 1
    assert last["coolsd"]["rounds"] == len(last["coolsd"]["accepted"])


def test_prompts_as_a_list_and_as_tokens(api: Any, text_pipe: Pipeline) -> None:
    def texts(prompt: Any, **more: Any) -> list[str]:
        answer = api.completions.create(model="writer", prompt=prompt, seed=4, extra_body=VARIED, **more)
        return [one.text for one in answer.choices]

    wanted = text_pipe(["red apple", "star"], raw=True, seed=4, images_per_prompt=2, **VARIED)
    assert texts(["red apple", "star"], n=2) == wanted.texts
    rows = [list(wanted.written[place].job.encoded.ids) for place in (0, 2)]
    assert texts(rows, n=2) == wanted.texts
    assert texts(rows[0]) == wanted.texts[:1]


def test_answers_and_models_have_the_shapes_of_the_document(text_server: RunningServer) -> None:
    ChatAnswer.model_validate(text_server.chat(n=2).json())
    CompletionAnswer.model_validate(text_server.continue_(model="reader").json())
    models = ModelsAnswer.model_validate(text_server.http.get("/v1/models").json()).data
    assert [(model.id, model.coolsd.makes) for model in models] == [
        ("writer", "text"), ("reader", "text"), ("tiny", "image"),
    ]  # fmt: skip
    docs = text_server.http.get("/docs").text
    for word in (CHATS, COMPLETIONS, "messages", "ContentPart", "stream_options", "max_completion_tokens"):
        assert word in docs


def test_each_route_has_its_engines(text_server: RunningServer) -> None:
    assert text_server.draw().json()["coolsd"]["model"] == "tiny"  # the first that draws
    assert text_server.chat().json()["model"] == "writer"
    for answer in (
        text_server.chat(model="tiny"),
        text_server.continue_(model="tiny"),
        text_server.draw(model="writer"),
    ):
        error = error_of(answer, 400)
        assert error.param == "model"
        assert "expected an engine that " in error.message
    assert error_of(text_server.chat(model="gpt-4"), 404).code == "model_not_found"
    error = error_of(text_server.chat(model="reader"), 400)
    assert "expected an engine with a chat template, found one without" in error.message
    assert error.param == "messages"


def test_an_image_server_has_no_texts(server: RunningServer) -> None:
    assert error_of(server.chat(), 400).param == error_of(server.continue_(), 400).param == "model"
    assert server.http.get(IMAGES).status_code == 405


def test_a_random_seed_is_told(text_server: RunningServer) -> None:
    told = text_server.continue_(**VARIED).json()
    again = text_server.continue_(seed=told["coolsd"]["texts"][0]["seed"], **VARIED).json()
    assert told["choices"][0]["text"] == again["choices"][0]["text"]
    assert told["coolsd"]["texts"][0]["seed"] != text_server.continue_().json()["coolsd"]["texts"][0]["seed"]


def test_counters_add_up_to_what_was_written(text_server: RunningServer) -> None:
    def counts() -> list[float]:
        names = ("texts_total", "generation_tokens_total", "prompt_tokens_total", "time_to_first_token_seconds_count")
        return [text_server.metric(name, model_name="reader") for name in names]

    before = counts()
    answer = text_server.continue_(model="reader", n=2).json()
    text_server.events(COMPLETIONS, model="reader", max_tokens=2)
    tokens, prompt = answer["usage"]["completion_tokens"] + 2, answer["usage"]["prompt_tokens"]
    assert [after - old for after, old in zip(counts(), before, strict=True)] == [3, tokens, 3 * prompt, 2]
    assert text_server.metric("texts_total", model_name="reader", finished_reason="abort") == 0

"""The `openai` package as the client: what it asks for, it gets, and its exceptions are those of its documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt import Pipeline
from coolsd_rt.workflows.png import CHUNK
from tests.serve.conftest import Start
from tests.serve.serving import RunningServer, opened, pixels
from tests.tiny import SIDE, TARGET

openai = pytest.importorskip("openai")
SIZE: Any = f"{SIDE}x{SIDE}"
KEY = "0123456789abcdef-key"


def client(server: RunningServer, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def api(server: RunningServer) -> Iterator[Any]:
    with client(server) as made:
        yield made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"plain": True},
        {"guidance_scale": 1.0, "temperature": 0.7, "top_k": 5, "top_p": 0.9},
        {"delta": 1.5},
        {"schedule": "none", "acceptance": "ratio", "resampler": "residual"},
        {"draft": "jacobi", "draft_length": 2},
        {"draft": "ngram", "draft_length": 3},
    ],
    ids=str,
)
def test_the_images_are_those_of_the_pipeline(api: Any, pipe: Pipeline, options: dict[str, Any]) -> None:
    answer = api.images.generate(prompt="red apple", model="tiny", n=4, extra_body={"seed": 7, **options})
    given = {key: value for key, value in options.items() if key != "delta"}
    if "delta" in options:
        given["schedule"] = {"delta": options["delta"]}
    wanted = pipe("red apple", seed=7, images_per_prompt=4, **given)
    assert [pixels(one.b64_json) for one in answer.data] == [image.tobytes() for image in wanted.images]
    assert [figures["seed"] for figures in answer.coolsd["images"]] == [7, 8, 9, 10]


def test_a_plain_answer_has_all_that_openai_says(api: Any) -> None:
    raw = api.images.with_raw_response.generate(prompt="red unicorn", size=SIZE, extra_body={"seed": 2**64 - 1}, n=2)
    answer = raw.parse()
    assert re.fullmatch(r"req_[0-9a-f]{32}", raw.headers["x-request-id"])
    assert (answer.size, answer.output_format, answer.background) == (SIZE, "png", "opaque")
    tokens = TARGET.grid**2
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 2 * tokens)
    assert answer.usage.total_tokens == 2 + 2 * tokens
    assert answer.usage.input_tokens_details.text_tokens == 2
    assert answer.usage.input_tokens_details.image_tokens == 0
    assert [figures["seed"] for figures in answer.coolsd["images"]] == [2**64 - 1, 0]
    assert "unicorn" in answer.coolsd["warnings"][0]
    for figures in answer.coolsd["images"]:
        assert sum(figures["accepted"]) + figures["rounds"] + 1 == figures["tokens"] == tokens
        assert len(figures["accepted"]) == len(figures["num_drafts"]) == figures["rounds"]
        assert figures["grid"] == [TARGET.grid, TARGET.grid]


def test_a_png_can_be_drawn_again(api: Any, pipe: Pipeline) -> None:
    answer = api.images.generate(prompt="blue star")
    image = opened(answer.data[0].b64_json)
    seed = answer.coolsd["images"][0]["seed"]
    (record,) = pipe("blue star", seed=seed).records
    assert image.convert("RGB").tobytes() == record.image.tobytes()
    assert set(image.text) >= {CHUNK}  # type: ignore[attr-defined]
    assert pixels(answer.data[0].b64_json) != pixels(api.images.generate(prompt="blue star").data[0].b64_json)


@pytest.mark.parametrize(("kind", "magic"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats(api: Any, kind: Any, magic: str) -> None:
    answer = api.images.generate(prompt="red apple", output_format=kind, output_compression=50)
    image = opened(answer.data[0].b64_json)
    assert (image.format, image.size, answer.output_format) == (magic, (SIDE, SIDE), kind)


def test_a_stream_shows_rows_as_they_are_decided(api: Any, pipe: Pipeline) -> None:
    extra = {"seed": 3, "progress": True}
    events = list(api.images.generate(prompt="red apple", stream=True, partial_images=3, extra_body=extra))
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    rows = [event.coolsd["rows"] for event in partial]
    assert rows
    assert rows == sorted(set(rows))
    assert all(event.coolsd["total_rows"] == TARGET.grid and event.size == SIZE for event in partial)
    for event in partial:
        blank = opened(event.b64_json).convert("RGB").crop((0, SIDE * event.coolsd["rows"] // TARGET.grid, SIDE, SIDE))
        assert set(blank.tobytes()) == {255}
    final = events[-1]
    assert final.type == "image_generation.completed"
    assert pixels(final.b64_json) == pipe("red apple", seed=3).images[0].tobytes()
    progress = [event for event in events if event.type == "image_generation.progress"]
    assert progress[-1].decided == TARGET.grid**2
    for name in ("accepted", "num_drafts"):
        assert [count for event in progress for count in getattr(event, name)] == final.coolsd[name]


def test_models(api: Any) -> None:
    (model,) = api.models.list().data
    assert (model.id, model.object, model.owned_by) == ("tiny", "model", "coolsd-rt")
    assert model.coolsd["size"] == SIZE
    assert model.coolsd["samples"]
    assert api.models.retrieve("tiny") == model


def test_its_exceptions(api: Any, server: RunningServer) -> None:
    def refused(kind: Any, **options: Any) -> Any:
        with pytest.raises(kind) as found:
            api.images.generate(**{"prompt": "red apple", **options})
        return found.value

    error = refused(openai.NotFoundError, model="dall-e-3")
    assert (error.code, error.param) == ("model_not_found", "model")
    assert refused(openai.BadRequestError, prompt="red " * 2600).param == "prompt"  # too many characters
    assert refused(openai.BadRequestError, prompt="red " * 40).param == "prompt"  # too many words for the engine
    assert refused(openai.BadRequestError, prompt="red " * 40, stream=True).param == "prompt"
    assert refused(openai.BadRequestError, n=11).param == "n"
    assert refused(openai.BadRequestError, size="1024x1024").param == "size"
    assert refused(openai.BadRequestError, response_format="url").param == "response_format"
    assert refused(openai.BadRequestError, background="transparent").param == "background"
    assert refused(openai.BadRequestError, stream=True, n=2).param == "n"
    assert refused(openai.BadRequestError, extra_body={"draft_length": 17}).param == "draft_length"
    assert refused(openai.BadRequestError, extra_body={"timeout": 301}).param == "timeout"
    assert refused(openai.BadRequestError, extra_body={"acceptance": {"rule": "lantern"}}).status_code == 400
    error = refused(openai.BadRequestError, extra_body={"tempreature": 1})
    assert error.param == "tempreature"
    assert "did you mean 'temperature'?" in error.message


def test_a_key_guards_all_but_health(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    server = start("--api-key-file", file)
    for key in ("none", KEY[:-1], KEY + "x", "é"):
        with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)) as error:
            client(server, key).images.generate(prompt="red apple")
        assert getattr(error.value, "code", "invalid_api_key") == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        client(server).models.list()
    assert client(server, KEY).images.generate(prompt="red apple").data
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/static/index.html"):
        assert server.http.get(path).status_code == 200, path
    for path in (
        "/metrics",
        "/v1/models",
        "/v1/models/tiny",
        "/invocations",
        "/V1/models",
        "//v1/models",
        "/static/../v1/models",
    ):
        assert server.http.get(path).status_code == 401, path
    twice = [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer x")]
    assert server.http.get("/v1/models", headers=twice).status_code == 401
    assert KEY not in str(server.log)
    assert "apple" not in str(server.log)

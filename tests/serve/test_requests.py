"""What is no good request is an error in OpenAI's shape, never a 500; and the documents say what is answered."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coolsd_rt.serve.answers import ErrorAnswer, FiguresAnswer, ImagesAnswer, ModelsAnswer, ReadyAnswer
from coolsd_rt.serve.app import PAGE
from coolsd_rt.serve.body import BODY_BYTES
from coolsd_rt.serve.guard import HEADER_BYTES
from coolsd_rt.serve.image_request import GenerationRequest
from tests.serve.serving import IMAGES, RunningServer

schemathesis = pytest.importorskip("schemathesis")
JSON = {"content-type": "application/json"}


def error_of(answer: httpx.Response, status: int) -> Any:
    """The error of an answer, which has the shape of all errors and a request id."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    return ErrorAnswer.model_validate(answer.json()).error


DEEP = b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}"
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"prompt=red",
    "cut off": b'{"prompt": "red',
    "a list": b"[]",
    "a number": b"1",
    "deep": DEEP,
    "NaN": b'{"prompt": "red", "temperature": NaN}',
    "infinity": b'{"prompt": "red", "temperature": 1e999}',
    "twice": b'{"prompt": "red", "prompt": "blue"}',
    "not UTF-8": b'{"prompt": "\xff"}',
    "half a pair": rb'{"prompt": "\ud800"}',
    "NUL": rb'{"prompt": "red\u0000"}',
    "digits": b'{"prompt": "red", "seed": ' + b"9" * 5000 + b"}",
    "no prompt": b"{}",
    "null": b'{"prompt": null}',
    "empty": b'{"prompt": "  "}',
    "a list of prompts": b'{"prompt": ["red"]}',
    "true for 1": b'{"prompt": "red", "n": true}',
    "text for 1": b'{"prompt": "red", "n": "1"}',
    "a half": b'{"prompt": "red", "n": 1.5}',
    "none": b'{"prompt": "red", "n": 0}',
    "negative": b'{"prompt": "red", "seed": -1}',
    "too large": b'{"prompt": "red", "seed": 18446744073709551616}',
    "a schedule of paths": b'{"prompt": "red", "schedule": {"/etc/passwd": 1}}',
    "a nested schedule": b'{"prompt": "red", "schedule": {"delta": {"delta": 1}}}',
    "a list for a schedule": b'{"prompt": "red", "schedule": [1]}',
    "an odd kind": b'{"prompt": "red", "schedule": "../../etc/passwd"}',
    "a path": b'{"prompt": "red", "features": "/etc/passwd"}',
    "two deltas": b'{"prompt": "red", "delta": 1.1, "schedule": {"delta": 1.2}}',
    "partial images of no stream": b'{"prompt": "red", "partial_images": 2}',
    "progress of no stream": b'{"prompt": "red", "progress": true}',
    "too many partial images": b'{"prompt": "red", "stream": true, "partial_images": 17}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_400(server: RunningServer, name: str) -> None:
    error = error_of(server.http.post(IMAGES, content=BODIES[name], headers=JSON), 400)
    assert error.type == "invalid_request_error"
    assert "expected" in error.message
    assert len(error.message) < 600
    assert "/work" not in error.message
    assert "site-packages" not in error.message


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(sorted(GenerationRequest.model_fields)) | st.text(max_size=8), inner, max_size=5),
    max_leaves=8,
).map(lambda data: json.dumps(data).encode()))  # fmt: skip
def test_no_body_is_a_500(server: RunningServer, body: bytes) -> None:
    answer = server.http.post(IMAGES, content=body, headers=JSON)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        error_of(answer, answer.status_code)


def test_other_types_of_bodies_are_refused(server: RunningServer) -> None:
    """A page of another site can send them without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/json5"):
        answer = server.http.post(IMAGES, content=b'{"prompt": "red"}', headers={"content-type": kind})
        assert error_of(answer, 415).code == "unsupported_media_type"
    answer = server.http.post(
        IMAGES, content=b'{"prompt": "red"}', headers={"content-type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 200


def test_large_bodies_are_refused_while_they_come(server: RunningServer) -> None:
    body = b'{"prompt": "' + b"a" * BODY_BYTES + b'"}'
    assert error_of(server.http.post(IMAGES, content=body, headers=JSON), 413).code == "too_large"
    chunks = (b"a" * 1000 for _ in range(BODY_BYTES // 1000 + 1))  # sent in chunks, without a length
    assert error_of(server.http.post(IMAGES, content=chunks, headers=JSON), 413).code == "too_large"
    assert server.http.get("/health").status_code == 200


def raw(server: RunningServer, data: bytes) -> bytes:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(data)
        got = b""
        while part := sock.recv(65536):
            got += part
        return got


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00",  # TLS
        b"GET /health HTTP/1.1\r\n\r\n",  # no host
        b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    ],
    ids=range(4),
)
def test_what_is_no_http_is_a_400_and_the_end(server: RunningServer, data: bytes) -> None:
    head, _, body = raw(server, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_" in head
    ErrorAnswer.model_validate_json(body)


def test_large_headers_are_refused(server: RunningServer) -> None:
    for many in ({"x": "a" * HEADER_BYTES}, {f"x{k}": "a" * 100 for k in range(HEADER_BYTES // 100)}):
        error_of(httpx.get(f"{server.url}/health", headers=many), 431)
    endless = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * (HEADER_BYTES + 4000)
    assert raw(server, endless).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example:80", "localhost.", "[::2]", ""])
def test_a_name_that_leads_here_is_not_ours(server: RunningServer, host: str) -> None:
    """A browser sends the name of the page's site, whatever address it leads to."""
    answer = server.http.get("/v1/models", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_our_names_are_ours(server: RunningServer, host: str) -> None:
    assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


def test_unknown_paths_and_methods(server: RunningServer) -> None:
    for path in (
        "/v1",
        "/v1/images",
        "/v1/models/a/b",
        "/static/none.js",
        "/static/../serve.py",
        "/static/%2e%2e/app.py",
    ):
        error_of(server.http.get(path), 404)
    assert error_of(server.http.get("/v1/models/none"), 404).code == "model_not_found"
    answer = server.http.get(IMAGES)
    assert error_of(answer, 405).code == "method_not_allowed"
    assert answer.headers["allow"] == "POST"
    error_of(server.http.delete("/ready"), 405)


def test_answers_have_the_shapes_of_the_document(server: RunningServer) -> None:
    ImagesAnswer.model_validate(server.draw(n=2).json())
    ModelsAnswer.model_validate(server.http.get("/v1/models").json())
    ReadyAnswer.model_validate(server.http.get("/ready").json())
    final = server.events()[-2]["coolsd"]
    FiguresAnswer.model_validate({key: final[key] for key in final.keys() - {"model", "engine", "warnings"}})


def test_an_error_in_a_stream_ends_it(server: RunningServer) -> None:
    assert server.events(timeout=0.001)[0]["error"]["code"] == "deadline_exceeded"
    assert server.events()[-1] == {}


def test_pages_load_nothing_from_elsewhere(server: RunningServer) -> None:
    for path, kind in (("/", "text/html"), ("/docs", "text/html"), ("/docs/style.css", "text/css")):
        answer = server.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "https://" not in answer.text.replace("https://github.com", "")
        assert "<script>" not in answer.text
    docs = server.http.get("/docs").text
    for word in (IMAGES, *GenerationRequest.model_fields, *FiguresAnswer.model_fields):
        assert word in docs


KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def test_every_file_of_the_page_is_served_as_what_it_is(server: RunningServer) -> None:
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert "index.html" in {path.name for path in files}
    for path in files:
        answer = server.http.get(f"/static/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"].partition(";")[0] == KINDS[path.suffix], path.name
        assert "'unsafe" not in answer.headers["content-security-policy"]


def test_counters_add_up_to_what_was_drawn(server: RunningServer) -> None:
    names = {
        "images_total": lambda one: 1,
        "generation_tokens_total": lambda one: one["tokens"],
        "spec_decode_num_drafts_total": lambda one: sum(count > 0 for count in one["num_drafts"]),
        "spec_decode_num_draft_tokens_total": lambda one: sum(one["num_drafts"]),
        "spec_decode_num_accepted_tokens_total": lambda one: sum(one["accepted"]),
    }
    server.draw()
    before = {name: server.metric(name, model_name="tiny") for name in names}
    stopped = server.metric("request_success_total", finished_reason="stop")
    places = server.metric("spec_decode_num_accepted_tokens_per_pos_total")
    first = server.metric("spec_decode_num_accepted_tokens_per_pos_total", position="0")
    images = [
        one
        for body in ({"n": 5}, {"plain": True}, {"delta": 2.0})
        for one in server.draw(**body).json()["coolsd"]["images"]
    ]
    images.append(server.events(partial_images=2)[-2]["coolsd"])
    for name, count in names.items():
        assert server.metric(name, model_name="tiny") - before[name] == sum(map(count, images)), name
    accepted = [count for one in images for count in one["accepted"]]
    assert sum(accepted) > 0
    assert server.metric("spec_decode_num_accepted_tokens_per_pos_total") - places == sum(accepted)
    by_first = server.metric("spec_decode_num_accepted_tokens_per_pos_total", position="0") - first
    assert by_first == sum(count > 0 for count in accepted)
    assert server.metric("request_success_total", finished_reason="stop") - stopped == 4
    assert server.busy() == 0


def test_the_log_has_a_line_a_request(server: RunningServer) -> None:
    answer = server.draw(prompt="a secret wish", n=2)
    number = answer.headers["x-request-id"]
    server.wait_for(lambda: [line for line in server.log if line.get("request_id") == number])
    (line,) = [line for line in server.log if line.get("request_id") == number]
    told = {key: line[key] for key in ("level", "event", "method", "path", "status", "model", "images")}
    assert told == {
        "level": "info", "event": "request", "method": "POST", "path": IMAGES, "status": 200, "model": "tiny",
        "images": 2,
    }  # fmt: skip
    assert "secret" not in str(server.log)
    assert not [line for line in server.log if line["level"] == "error"]


def test_schemathesis_finds_nothing(server: RunningServer) -> None:
    """Every operation, with bodies that fit the document and bodies that do not."""
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    wanted = [
        check
        for check in checks.CHECKS.get_all()
        # Which fields exclude each other, and which sizes and models there are, no schema can say.
        if check.__name__ not in ("positive_data_acceptance",)
    ]
    seen = 0
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(max_examples=50, suppress_health_check=list(HealthCheck), database=None)
        @given(strategy)
        def ask(case: Any) -> None:
            nonlocal seen
            seen += 1
            case.call_and_validate(checks=wanted)

        ask()
    assert seen >= 100

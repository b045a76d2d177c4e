"""The routes of the server.

Knows HTTP and which document each route answers with. Does not know processes, how an image is drawn, or the routes of
texts (`text_routes`).
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from coolsd_rt import __version__
from coolsd_rt.serve import answers, text_answers
from coolsd_rt.serve.api_errors import ApiError
from coolsd_rt.serve.body import read_body
from coolsd_rt.serve.docs_page import STYLE, docs_page
from coolsd_rt.serve.event_stream import ClientLeft
from coolsd_rt.serve.guard import NOTES, error_response
from coolsd_rt.serve.image_commission import ImageCommission
from coolsd_rt.serve.image_request import read_request
from coolsd_rt.serve.long_answers import answer_of
from coolsd_rt.serve.served import Served
from coolsd_rt.serve.text_routes import add_texts

PAGE = Path(__file__).parent / "page"
_ABOUT = (
    "Images and texts by relaxed speculative decoding, behind OpenAI's API. Fields that OpenAI does not have are ours."
)


def make_app(served: Served) -> FastAPI:
    """Return the application, without its guard."""
    app = FastAPI(title="coolsd-rt", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None)
    _add_handlers(app)
    _add_images(app, served)
    add_texts(app, served)
    _add_models(app, served)
    _add_states(app, served)
    _add_pages(app)
    # FastAPI writes the ends of integers as floats, which rounds the largest seed to one that is refused.
    document = app.openapi()
    document["paths"]["/v1/images/generations"]["post"].update(answers.REQUEST_BODY)
    document["paths"]["/v1/chat/completions"]["post"].update(text_answers.CHAT_BODY)
    document["paths"]["/v1/completions"]["post"].update(text_answers.COMPLETION_BODY)
    document["components"]["schemas"].update(text_answers.shapes())
    return app


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def of_ours(_: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def of_routes(_: Request, error: HTTPException) -> Response:
        text = "there is nothing under this path" if error.status_code == 404 else "this path has other methods"
        code = "not_found" if error.status_code == 404 else "method_not_allowed"
        return error_response(ApiError(error.status_code, text, code=code, headers=dict(error.headers or {})))

    @app.exception_handler(ClientLeft)
    async def of_nobody(_: Request, error: ClientLeft) -> Response:
        return Response(status_code=499)  # nobody reads it; the log shows it


def _add_images(app: FastAPI, served: Served) -> None:
    @app.post(
        "/v1/images/generations",
        responses=answers.IMAGES,
        openapi_extra=answers.REQUEST_BODY,
        response_class=JSONResponse,
        tags=["images"],
    )
    async def images(request: Request) -> Response:
        """Draw images of a prompt."""
        asked = read_request(await read_body(request))
        host = served.host_for("image", asked.model)
        notes = request.scope[NOTES]
        notes.model, notes.images = host.engine.name, asked.images
        served.check_going()
        commission = ImageCommission.taken(host, asked, served.metrics, served.seconds)
        return await answer_of(request, commission, bool(asked.stream))


def _add_models(app: FastAPI, served: Served) -> None:
    @app.get(
        "/v1/models",
        responses={200: {"model": answers.ModelsAnswer}, **answers.errors(401, 403, 431, 503)},
        tags=["models"],
    )
    async def models() -> JSONResponse:
        """List the engines."""
        data = [host.engine.as_model(host.samples) for host in served.hosts.values()]
        return JSONResponse({"object": "list", "data": data})

    @app.get(
        "/v1/models/{model}",
        responses={200: {"model": answers.ModelAnswer}, **answers.errors(401, 403, 404, 431, 503)},
        openapi_extra=answers.MODEL_PARAMETER,
        tags=["models"],
    )
    async def model(request: Request) -> JSONResponse:
        """Describe an engine."""
        host = served.host(request.path_params["model"])
        return JSONResponse(host.engine.as_model(host.samples))


def _add_states(app: FastAPI, served: Served) -> None:
    @app.get(
        "/health", responses={200: {"model": answers.HealthAnswer}, **answers.errors(403, 431, 503)}, tags=["states"]
    )
    async def health() -> JSONResponse:
        """Whether the server answers. Asks no engine, and needs no key."""
        return JSONResponse({"status": "ok"})

    states = {"model": answers.ReadyAnswer, "description": "An engine is not ready, or the server is about to end."}

    @app.get(
        "/ready",
        responses={200: {"model": answers.ReadyAnswer}, 503: states, **answers.errors(403, 431)},
        tags=["states"],
    )
    async def ready() -> JSONResponse:
        """Whether all engines take requests. Needs no key."""
        hosts = served.hosts.values()
        done = not served.draining and all(host.state == "ready" for host in hosts)
        engines = [{"model": host.engine.name, "state": host.state, "reason": host.reason} for host in hosts]
        document = {"ready": done, "draining": served.draining, "engines": engines}
        return JSONResponse(document, 200 if done else 503)

    @app.get(
        "/metrics",
        responses={
            200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **answers.errors(401, 403, 431, 503),
        },
        response_class=Response,
        tags=["states"],
    )
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(served.metrics.document(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/docs/style.css", include_in_schema=False)
    async def style() -> Response:
        return Response(STYLE, media_type="text/css; charset=utf-8")

    app.mount("/static", StaticFiles(directory=PAGE), name="static")

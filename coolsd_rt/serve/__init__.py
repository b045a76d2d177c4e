"""The server: images over HTTP in the form of OpenAI's images API, with each engine in a process of its own.

The one room that knows FastAPI, uvicorn and Prometheus. The HTTP process loads no engine; it checks engines before the
port opens (`checks`), starts and watches their processes (`host`), and answers requests (`app`). An engine's process
draws (`engine_work`). Between the two go messages of JSON and raw pixels (`messages`).
"""

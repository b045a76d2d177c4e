"""A server whose answer is a list of pieces of bytes, which may wait in the middle or end anywhere."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from PIL import Image

WAIT = b""
"""A piece at which the server waits until the client leaves or the test lets it go on."""

PATIENCE = 20.0


def event(**data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def picture(side: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "crimson").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def progress(accepted: Sequence[int], drafts: int, decided: int, tokens: int = 16) -> bytes:
    counts = {"accepted": list(accepted), "num_drafts": [drafts] * len(accepted)}
    return event(type="image_generation.progress", decided=decided, tokens=tokens, seconds=0.25, **counts)


def partial(rows: int, total: int = 4) -> bytes:
    shown = {"rows": rows, "total_rows": total}
    kind = "image_generation.partial_image"
    return event(type=kind, b64_json=picture(), output_format="png", partial_image_index=0, coolsd=shown)


def completed(accepted: Sequence[int], drafts: int, seconds: float, warnings: Sequence[str] = ()) -> bytes:
    """The end of an image of 4 x 4 tokens."""
    figures = {
        "tokens": 16,
        "rounds": len(accepted),
        "mean_acceptance_length": 1 + sum(accepted) / len(accepted),
        "accepted": list(accepted),
        "num_drafts": [drafts] * len(accepted),
        "seconds_queue": 0.0,
        "seconds": seconds,
        "seconds_decode": 0.01,
        "tokens_per_second": 16 / seconds,
        "grid": [4, 4],
        "warnings": list(warnings),
    }
    last = event(type="image_generation.completed", b64_json=picture(), output_format="png", coolsd=figures)
    return last + b"data: [DONE]\n\n"


class Scripted:
    """Answers every POST with `plain` or, if the request is for COOL-SD, with `cool`."""

    def __init__(self) -> None:
        self.plain: list[bytes] = []
        self.cool: list[bytes] = []
        self.go_on = threading.Event()
        self.left = threading.Semaphore(0)
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for piece in script.plain if body.get("plain") else script.cool:
                    if piece == WAIT and not self._wait():
                        return
                    self.wfile.write(piece)
                    self.wfile.flush()

            def _wait(self) -> bool:
                """Whether the test let it go on; False: the client left, which reads as the end of what it sends."""
                self.connection.settimeout(0.02)
                while not script.go_on.is_set():
                    try:
                        if self.connection.recv(1) == b"":
                            script.left.release()
                            return False
                    except TimeoutError:
                        continue
                    except OSError:
                        script.left.release()
                        return False
                self.connection.settimeout(PATIENCE)
                return True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def gone(self) -> bool:
        """Whether a client left, waited for."""
        return self.left.acquire(timeout=PATIENCE)

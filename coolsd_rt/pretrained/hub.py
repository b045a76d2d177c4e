"""Makes the Hugging Face hub's library quiet, and fail fast without a network.

Knows its logger and its HTTP session. Does not know repositories.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CONNECT_SECONDS = 5.0
"""Seconds to wait for the hub's first answer, and for the name server."""


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence the library, except for errors, within the block. Raises ImportError without huggingface_hub."""
    import huggingface_hub

    said = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        huggingface_hub.logging.set_verbosity(said)


def no_answer() -> str:
    """Return the reason why the hub cannot be reached; empty if it answers.

    Sends one request, for `CONNECT_SECONDS` at most.

    The library retries every request several times, which takes half a minute without a network.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "no copy in the cache, and HF_HUB_OFFLINE is set"
    endpoint = constants.ENDPOINT
    found = [f"no answer from {endpoint} within {CONNECT_SECONDS:.0f} seconds"]

    def ask() -> None:
        try:
            huggingface_hub.get_session().head(endpoint, timeout=CONNECT_SECONDS)
            found.append("")
        except Exception as error:  # the hub's HTTP library varies
            found.append(f"no answer from {endpoint} ({str(error).strip()[:100] or type(error).__name__})")

    # A request's timeout does not cover name resolution.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    return found[-1]

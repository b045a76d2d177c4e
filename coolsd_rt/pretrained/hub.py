"""The Hugging Face hub's library, kept from printing a line for every retry, and from trying for minutes offline.

Knows its logger and its HTTP session. Does not know repositories.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CONNECT_SECONDS = 5.0
"""How long the hub has for its first answer, and how long a name server has."""


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Meanwhile it says nothing but errors. Raises ImportError without huggingface_hub."""
    import huggingface_hub

    said = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        huggingface_hub.logging.set_verbosity(said)


def no_answer() -> str:
    """Why the hub cannot be asked, in words; empty if it answers. One request, `CONNECT_SECONDS` at most.

    The library itself tries every request several times, which takes half a minute where there is no network.
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
        except Exception as error:  # of the hub's HTTP library, which is its own choice
            found.append(f"no answer from {endpoint} ({str(error).strip()[:100] or type(error).__name__})")

    # The time limit of a request does not hold for the name server.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    return found[-1]

"""The Hugging Face hub's library, kept from talking: it has a line for every retry. Knows its logger, nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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

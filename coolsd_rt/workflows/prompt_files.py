"""Makes the files of a text prompt that are read from a model's files rather than copied: tokenizer, chat template.

Knows which sources these are. Does not know how they are read (`checkpoints.gguf.tokenizer`,
`checkpoints.chat_template`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from coolsd_rt.checkpoints.chat_template import chat_template
from coolsd_rt.checkpoints.gguf.tokenizer import tokenizer_json
from coolsd_rt.checkpoints.reader import check_link
from coolsd_rt.errors import UserError
from coolsd_rt.store.outputs import is_taken, write_output

_READERS: Mapping[str, Callable[[Path], bytes]] = {"tokenizer": tokenizer_json, "template": chat_template}


def is_read(name: str, at: str) -> bool:
    """Whether the file of a key of `sources` is read from its source at `at`, rather than copied."""
    return name == "template" or (name == "tokenizer" and at.endswith(".gguf"))


def write_read(name: str, source: Path, place: Path, *, overwrite: bool) -> bool:
    """Write the file of a key of `sources`. Returns whether it was written: False if it has these bytes already.

    Raises UserError as its reader does, or if another file is there and `overwrite` is off.
    """
    check_link(source)
    data = _READERS[name](source)
    try:
        return write_output(place, data, overwrite=overwrite)
    except UserError as error:
        if not is_taken(place):
            raise
        fix = "give --overwrite to have it made anew, or leave its source out of the spec"
        expected = "no file yet, or one made of the spec's source"
        raise UserError(str(place), expected=expected, found="another file", fix=fix) from error

"""What one row of a prompts file asks for: a prompt, and optionally an id, a seed and settings.

Knows the columns. Does not know files or engines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, ValidationError

from coolsd_rt.errors import UserError
from coolsd_rt.prompts.base import some_text
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.workflows.call_options import SECTIONS, check_names
from coolsd_rt.workflows.image_options import ImageOptions

NAME_BYTES = 200  # of a file name without its ending: most file systems allow 255
_OWN = re.compile(r"row-\d{7,}")  # ids of rows that have none


class PromptRow(ImageOptions):
    """A row. Fields that it does not have keep the values of the job, or of the engine's spec."""

    id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="Name of the image in this job; default: the number of the row."
    )

    @property
    def file_name(self) -> str | None:
        """The name of its file, without an ending: the id, in which %XX stands for what names may not have."""
        return None if self.id is None else safe_name(self.id)


COLUMNS = ("prompt", "id", *(name for name in PromptRow.model_fields if name not in ("prompt", "id")))
TEXTS = ("prompt", "id")
"""Columns whose cells are text, whatever they look like."""


def safe_name(text: str) -> str:
    """Return a file name that no other text has. Raises UserError if it would be too long."""
    name = quote(text, safe=" +,=@()")
    if name.startswith("."):  # hidden, or a folder
        name = "%2E" + name[1:]
    if len(name) > NAME_BYTES:
        expected = f"an id of at most {NAME_BYTES} bytes as a file name"
        raise UserError("id", expected=expected, found=str(len(name)), fix="shorten it")
    return name


def row_id(number: int) -> str:
    """Return the id of a row without one. number: from 0."""
    return f"row-{number:07d}"


def is_taken_id(text: str, number: int) -> bool:
    """Whether an id is, or could be, that of another row without one. number: of the row that has it."""
    return _OWN.fullmatch(text) is not None and text != row_id(number)


def parse_row(values: Mapping[str, Any]) -> PromptRow:
    """Return a checked row. Raises UserError for the first thing that is wrong."""
    check_names(values, COLUMNS)
    given = dict(values)
    if type(given.get("id")) is int:  # ids of databases
        given["id"] = str(given["id"])
    try:
        row = PromptRow.model_validate(given)
    except ValidationError as error:
        raise _first_problem(error, given) from None
    some_text(row.prompt)
    row.options(0)
    _ = row.file_name
    return row


def _first_problem(error: ValidationError, given: dict[str, Any]) -> UserError:
    first = problems_of(error, given, PromptRow)[0]
    name = str(first.path[0])
    expected = "a text or an object" if name in SECTIONS else first.expected
    return UserError(name, expected=expected, found=first.found, fix=first.fix)

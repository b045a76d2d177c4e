"""Checks the fields of a request from Python when it is created, by the annotation of each field.

    @dataclass(frozen=True)
    class Request:
        seed: Annotated[int, Within(limits.SEED)] = 0
        out: Path = Path("out")

        def __post_init__(self) -> None:
            check_fields(self)

Converts a str to a Path where the annotation says so, a list to a tuple, and NumPy numbers to Python numbers. Anything
else that does not match is a UserError that names the field. Knows pydantic and dataclasses. Does not know which
requests there are.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.shown import shown
from coolsd_rt.spec.section import Within

Flag = Annotated[bool, Strict()]
Seed = Annotated[int, Within(limits.SEED)]
Images = Annotated[int, Within(limits.IMAGES)]
DraftLength = Annotated[int, Within(limits.DRAFT_LENGTH)]
TextTokens = Annotated[int, Within(limits.TEXT_TOKENS)]
Probability = Annotated[float, Within(limits.PROBABILITY)]
Threads = Annotated[int, Within(limits.THREADS)]

_EXPECTED = {
    "path_type": "a path",
    "string_type": "a text",
    "string_sub_type": "a text",
    "bool_type": "True or False",
    "sequence_str": "a list of texts",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
}
"""pydantic's error types to the expected value in an error message."""


@cache
def _adapters(request: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(request, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(request)}


def check_fields(request: Any) -> None:
    """Check and convert every field of a dataclass, from its `__post_init__`.

    Raises UserError for the first invalid field.
    """
    made_as: Any = type(request)
    for name, adapter in _adapters(made_as).items():
        value = getattr(request, name)
        try:
            object.__setattr__(request, name, adapter.validate_python(value))
        except ValidationError as error:
            raise _misfit(name, value, error.errors(include_url=False)) from None


def _misfit(name: str, value: Any, errors: list[ErrorDetails]) -> UserError:
    first = errors[0]
    where = name + "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
    if first["type"] == "spec":
        return UserError(where, expected=first["ctx"]["expected"], found=first["ctx"]["found"], fix=first["ctx"]["fix"])
    fix = f"write [{shown(value)}]" if first["type"] == "sequence_str" else ""
    if first["type"] == "literal_error":
        expected = f"one of {first['ctx']['expected'].replace(chr(39), '')}"
    elif first["type"] in ("is_instance_of", "dataclass_type", "dataclass_exact_type"):
        expected = f"a {first['ctx'].get('class') or first['ctx'].get('class_name')}"
    else:
        expected = _EXPECTED.get(first["type"], first["msg"])
    return UserError(where, expected=expected, found=shown(first["input"]), fix=fix)

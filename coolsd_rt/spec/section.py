"""Building blocks of the spec's sections: strict models, numbers in a range, relative paths, errors with two sides.

Knows pydantic. Does not know which sections there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import CoreSchema, ValidatorFunctionWrapHandler, no_info_wrap_validator_function

from coolsd_rt.errors import UserError
from coolsd_rt.limits import PATH_CHARACTERS
from coolsd_rt.ranges import Range
from coolsd_rt.shown import show


def complaint(expected: str, found: str, fix: str = "") -> PydanticCustomError:
    """Return a validation error with separate expected and found values, so that all messages have the same form."""
    # Pass the text through the context: in a template, braces would be fields.
    return PydanticCustomError("spec", "{text}", {"text": expected, "expected": expected, "found": found, "fix": fix})


@dataclass(frozen=True)
class Within:
    """A range for a numeric field, `Annotated[int, Within(SEED)]`, which also appears in the JSON Schema.

    An error states both ends, also for a value that is not a number. NumPy numbers are accepted.
    """

    ends: Range

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner: Any = {**handler(source), "ge": self.ends.low, "le": self.ends.high}
        if inner["type"] == "float":
            inner["allow_inf_nan"] = False
        return no_info_wrap_validator_function(self._checked, inner)

    def _checked(self, value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(self.ends.check("", value))
        except (UserError, ValidationError):
            raise complaint(self.ends.said, show(value)) from None


def relative(value: str) -> str:
    """Return the value. Raises a validation error unless it is a path inside the spec's folder."""
    path = PurePosixPath(value)
    if not value.strip() or "\0" in value:
        raise complaint("a file name", repr(value)[:60])
    if len(value) > PATH_CHARACTERS:
        raise complaint(f"a file name of at most {PATH_CHARACTERS} characters", str(len(value)))
    if path.is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~"):
        raise complaint("a path relative to the spec's folder", value, "put the file beside the spec")
    if ".." in path.parts or "\\" in value:
        raise complaint("a path inside the spec's folder, with / between names", value)
    return value


RelativePath = Annotated[str, AfterValidator(relative)]


class Section(BaseModel):
    """Base of all sections: no unknown keys, immutable, no type conversion ("4" is not 4), no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

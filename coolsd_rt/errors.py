"""The exceptions that users see: expected value, found value, and the command or change that fixes the error.

Knows exit codes. Does not know where errors come from or how a terminal shows them.
"""

from __future__ import annotations

from coolsd_rt.install import install_line


class CoolsdError(Exception):
    """A failure with a known cause (a broken engine, a full disk) that is not the user's mistake. Exit code 1."""

    exit_code = 1

    def __init__(self, what: str, *, expected: str = "", found: str = "", fix: str = "") -> None:
        self.what, self.expected, self.found, self.fix = what, expected, found, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        sides = [f"expected {self.expected}" if self.expected else "", f"found {self.found}" if self.found else ""]
        text = ": ".join(part for part in (self.what, ", ".join(side for side in sides if side)) if part)
        return f"{text}; {self.fix}" if self.fix else text

    def as_dict(self) -> dict[str, str]:
        """Return the parts of the message, for `--json`."""
        return {"error": self.what, "expected": self.expected, "found": self.found, "fix": self.fix}


class UserError(CoolsdError):
    """A mistake of the user (a wrong value, a missing file). Exit code 2."""

    exit_code = 2


def rebuilt(what: str, expected: str, found: str, fix: str, exit_code: int) -> CoolsdError:
    """Return an error that another process raised, from its parts: a UserError if its exit code is that of one."""
    kind = UserError if exit_code == UserError.exit_code else CoolsdError
    return kind(what, expected=expected, found=found, fix=fix)


class MissingExtra(UserError):
    """A required optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{package} is not installed, but {purpose} needs it",
            fix=f"run: {install_line(extra)}",
        )

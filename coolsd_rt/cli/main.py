"""The command `coolsd-rt`: verbs by name, imported on first use, and the only place that formats an error as a line.

Knows names of verbs and exit codes. Imports nothing heavy, so that `--help` is instant and works in a broken setup.

Exit codes: 0 done, 1 our failure, 2 the user's mistake, 130 interrupted. Under --json stdout holds one JSON document,
for a failure too; the line for a person goes to stderr either way.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from coolsd_rt import __version__
from coolsd_rt.captured import TRACEBACK, kept_words
from coolsd_rt.cli.extras import missing_extra
from coolsd_rt.cli.interrupts import leave, was_interrupted
from coolsd_rt.cli.terminal import complain, note, print_json
from coolsd_rt.errors import CoolsdError, UserError

VERBS = {
    "build": "Compile a spec's models into an engine.",
    "generate": "Draw images from prompts with an engine.",
    "batch": "Draw thousands of prompts from a file; resumable.",
    "serve": "Serve engines over HTTP: OpenAI's images API, and a page.",
    "parity": "Verify an engine against the eager PyTorch reference.",
    "inspect": "Show an engine's manifest, and why the engine is stale.",
    "validate": "Check a spec and the files it names.",
    "convert": "Convert a published checkpoint to a file that a spec can name.",
    "precompute": "Precompute the text features of prompts.",
    "doctor": "Report the supported features and the missing packages.",
    "bench": "Benchmark the decoding methods of an engine side by side.",
    "analyze": "Record P and Q of rounds; predict the effect of any schedule.",
    "sweep": "Quality against accept length on a grid, with the Pareto front.",
    "train-draft": "Train a draft model for a target; measure its accept length.",
    "quality": "Draw images of many captions; compute FID and CLIP score.",
    "tune": "Find the best schedule under a budget, on recorded rounds.",
    "schedule": "Print omega, the relaxation, of each draft position.",
    "schema": "Write the spec's JSON Schema, for editors.",
}


class Interrupted(CoolsdError):
    """Ctrl-C."""

    exit_code = 130


class LazyGroup(click.Group):
    """Verbs live in `coolsd_rt.cli.<verb>` as `command`; a verb's file is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module and return its command; None for an unknown name."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"coolsd_rt.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb of the arguments. Raises UsageError with the nearest name for one that is misspelled."""
        near = difflib.get_close_matches(args[0], VERBS, n=1)
        if args[0] not in VERBS and near:
            raise click.UsageError(f"no verb {args[0]!r}, did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs and their summaries, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. Raises Interrupted on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:  # before click turns it into an Abort and an empty line
            raise Interrupted("interrupted") from e


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="coolsd-rt")
def group() -> None:
    """Draw images with autoregressive models, accelerated by relaxed speculative decoding (COOL-SD).

    \b
    Example:
      coolsd-rt build pipelines/emoji.yaml
      coolsd-rt generate engines/emoji -p "red apple"
    """


def _explain(error: BaseException, verb: str = "") -> CoolsdError:
    """Any exception as an error with an exit code and one line. verb: which was typed."""
    if isinstance(error, Interrupted):
        return error
    if isinstance(error, click.Abort) or was_interrupted(error):
        return Interrupted("interrupted")
    if isinstance(error, CoolsdError):
        return error
    if isinstance(error, click.UsageError):
        hint = f"try '{error.ctx.command_path} --help'" if error.ctx else ""
        return UserError(" ".join(error.format_message().split()).rstrip("."), fix=hint)
    if isinstance(error, click.ClickException):
        return UserError(error.format_message())
    if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error, verb)):
        return missing
    if isinstance(error, MemoryError):
        return CoolsdError("out of memory", fix="draw fewer images at once, or use a smaller model")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f" ({error.filename})" if error.filename else ""
        return CoolsdError(f"no space left on the disk{where}", fix="free some space, or choose another disk")
    if isinstance(error, OSError) and error.filename:
        return CoolsdError(str(error.filename), expected="a readable and writable path", found=f"{error.strerror}")
    text = " ".join(str(error).split())
    return CoolsdError(f"unexpected {type(error).__name__}: {text}"[:500], fix=f"set {TRACEBACK}=1 for the traceback")


def _report(error: CoolsdError, as_json: bool) -> None:
    complain(error)
    if as_json:
        parts: Sequence[CoolsdError] = getattr(error, "problems", ())
        document: dict[str, Any] = {**error.as_dict(), "exit_code": error.exit_code}
        if parts:
            document["problems"] = [part.as_dict() for part in parts]
        print_json(document)


def wants_json(args: Sequence[str]) -> bool:
    """Whether --json was typed: asked of the words, since an error can come before they are parsed."""
    return "--json" in (args[: args.index("--")] if "--" in args else args)


def run(args: Sequence[str]) -> int:
    """Run a command line, report any failure, return the exit code."""
    try:
        with kept_words() as kept:
            code = group.main(args=list(args), prog_name="coolsd-rt", standalone_mode=False)
        kept.tell(note)
        if sys.stdout is not None:  # closed by the caller (`>&-`)
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # The reader left (`| head`). Python would complain again at exit while it flushes: give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except click.exceptions.NoArgsIsHelpError as e:
        for line in e.format_message().splitlines():
            note(line)
        return 2
    except (Exception, KeyboardInterrupt) as e:
        if os.environ.get(TRACEBACK):
            for line in traceback.format_exc().splitlines():
                note(line)
        error = _explain(e, next((word for word in args if word in VERBS), ""))
        try:
            _report(error, wants_json(args))
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:  # stdout itself is what failed: nobody reads there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.exit_code


def main() -> None:
    """Entry point."""
    leave(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

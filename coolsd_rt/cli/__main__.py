"""The entry point of the command, and `python -m coolsd_rt.cli`: Ctrl-C while imports run is one word too.

Knows what has to happen before any other import. Does not know verbs.
"""

import os
import sys

from coolsd_rt.cli.interrupts import INTERRUPTED, hold_back_during_imports, leave


def set_defaults() -> None:
    """Set what NumPy and pydantic read from the environment when they are imported. A value that is set is kept.

    The threads of NumPy's OpenBLAS start, and spin for 2^26 clock ticks, when NumPy is imported, though a round asks
    OpenBLAS for nothing: they sleep after 2^20 instead, and wake up as before. Plugins of pydantic are other people's
    programs, looked for in every installed package.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run the command; Ctrl-C during its imports ends with one word and exit code 130."""
    hold_back_during_imports()
    set_defaults()
    try:
        from coolsd_rt.cli.main import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201  (nothing of ours is imported yet)
        leave(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()

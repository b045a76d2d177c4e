"""The entry point of the command, and `python -m coolsd_rt.cli`: Ctrl-C while imports run is one word too.

Knows what has to happen before any other import. Does not know verbs.
"""

import os
import sys

from coolsd_rt.cli.interrupts import INTERRUPTED, hold_back_during_imports, leave


def let_idle_threads_sleep() -> None:
    """Let the threads of NumPy's OpenBLAS sleep soon after they had work, not after 2^26 clock ticks of spinning.

    They start, and spin, when NumPy is imported, though a round asks OpenBLAS for nothing. They wake up as before.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


def main() -> None:
    """Run the command; Ctrl-C during its imports ends with one word and exit code 130."""
    hold_back_during_imports()
    let_idle_threads_sleep()
    try:
        from coolsd_rt.cli.main import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201  (nothing of ours is imported yet)
        leave(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()

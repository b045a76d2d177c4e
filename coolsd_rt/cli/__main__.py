"""The entry point of the command, and `python -m coolsd_rt.cli`: Ctrl-C while imports run is one word too."""

import sys

from coolsd_rt.cli.interrupts import INTERRUPTED, hold_back_during_imports, leave


def main() -> None:
    """Run the command; Ctrl-C during its imports ends with one word and exit code 130."""
    hold_back_during_imports()
    try:
        from coolsd_rt.cli.main import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201  (nothing of ours is imported yet)
        leave(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()

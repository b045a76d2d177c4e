"""The entry of an engine's process: one thread reads messages, the main thread draws.

The process ends when it is told to, and also when the HTTP process is gone, whatever it is doing then: the socket
between them is closed with the last of its owners.

Knows the process and its socket. Does not know how an image is drawn (`engine_work`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

from coolsd_rt.captured import kept_words
from coolsd_rt.errors import CoolsdError
from coolsd_rt.serve.messages import Setup, StartFailedMessage, ToEngine, receive, send

COMMAND = "import sys; sys.path[:] = sys.argv[2:]; from coolsd_rt.serve.engine_process import main; main()"
"""What Python runs in the process. Arguments: the number of the socket, then the paths to import from."""


def _read(connection: Connection, inbox: queue.SimpleQueue[ToEngine]) -> None:
    """Hand on messages; end the process when there will be no more."""
    while True:
        try:
            inbox.put(receive(connection))  # type: ignore[arg-type]  # the other side sends no others
        except (EOFError, OSError):
            os._exit(0)  # nobody is left to draw for; a loop in native code would not see an exception


def main() -> None:
    """Serve one engine until told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):  # of a terminal or a supervisor: the HTTP process decides
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    setup = receive(connection)
    if not isinstance(setup, Setup):
        sys.exit(1)
    inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), name="messages", daemon=True).start()
    try:
        with kept_words():
            from coolsd_rt.serve.engine_work import EngineWork  # imports what draws

            work = EngineWork.load(setup, lambda message: send(connection, message))
    except CoolsdError as error:
        parts = (error.what, error.expected, error.found, error.fix, error.exit_code)
        with contextlib.suppress(OSError):
            send(connection, StartFailedMessage(*parts))
        sys.exit(1)
    with contextlib.suppress(BrokenPipeError):  # the reading thread ends the process
        work.run(inbox)

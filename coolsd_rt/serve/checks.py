"""Everything that can be wrong with the options of the server, found before the port opens. Loads no engine.

Knows engines' folders, the file of the key, memory and the port. Does not know HTTP.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import open_plain
from coolsd_rt.serve.facts import ServeConfig, ServedEngine
from coolsd_rt.serve.memory import available_memory, check_memory
from coolsd_rt.store.manifest import rebuild_hint
from coolsd_rt.workflows.opened import OpenedEngine

KEY_LEAST, KEY_MOST = 16, 512  # characters
_BACKLOG = 1024
_MILLISECONDS_UNREAD = 60_000  # until a connection ends whose client reads nothing
_NEW_KEY = "make one: (umask 077; openssl rand -hex 24 > {})"


def check_engines(config: ServeConfig, copies: int = 1) -> list[ServedEngine]:
    """Open all engines without loading them; every file is hashed.

    copies: how many processes of each engine this machine runs; 0 if others run them.

    Raises UserError: no engine, two of one name, or more slots than memory. CoolsdError: an engine is broken or its
    parity run failed or is missing. MissingExtra: an engine's backend is not installed.
    """
    if not config.engines:
        raise UserError("engines", expected="at least one", found="none")
    served: dict[str, ServedEngine] = {}
    for path in config.engines:
        opened = OpenedEngine.at(path, None, config.threads)
        name = opened.manifest.name
        if name in served:
            found = f"{served[name].opened.folder.folder} and {opened.folder.folder}"
            raise UserError(
                f"the name {name}", expected="one engine", found=found, fix="serve one of them on each port"
            )
        served[name] = ServedEngine(opened, config.slots or opened.spec.engine.max_batch, config.queue)
    check_memory(copies * list(served.values()), available_memory())
    for engine in served.values():
        _check_engine(engine.opened)
    return list(served.values())


def _check_engine(opened: OpenedEngine) -> None:
    opened.settings()
    opened.check_backend()
    _check_proof(opened.manifest.parity, opened)
    opened.verified.check()


def _check_proof(receipt: Mapping[str, object] | None, opened: OpenedEngine) -> None:
    """Raise CoolsdError if the engine failed its parity run, or is for a GPU and has had none."""
    folder, expected = opened.folder.folder, "an engine that passed parity"
    if receipt is not None and not receipt.get("passed"):
        fix = rebuild_hint(folder, opened.manifest)
        raise CoolsdError(str(folder), expected=expected, found="one that did not", fix=fix)
    if receipt is None and opened.spec.engine.device == "cuda":
        raise CoolsdError(str(folder), expected=expected, found="no parity run", fix=f"run: coolsd-rt parity {folder}")


def read_key(path: Path | None) -> bytes | None:
    """Return the key of the server; None if it has none.

    Raises UserError if others may read the file, or if it does not hold one key of printable characters.
    """
    if path is None:
        return None
    with open_plain(path, "a file with a key") as file:
        if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(
                str(path), expected="a key that its owner alone may read", found="others may", fix=f"chmod 600 {path}"
            )
        key = file.read(KEY_MOST + 3).strip()
    expected = f"one key of {KEY_LEAST} to {KEY_MOST} printable characters without spaces"
    found = "an empty file" if not key else f"{len(key)}" if not KEY_LEAST <= len(key) <= KEY_MOST else ""
    if not found and not all(0x21 <= byte <= 0x7E for byte in key):
        found = "other characters"
    if found:
        raise UserError(str(path), expected=expected, found=found, fix=_NEW_KEY.format(path))
    return key


def is_loopback(host: str) -> bool:
    """Whether an address is for this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises UserError if the port is taken or not ours, or if the host is not here."""
    if not host:
        raise UserError(
            "--host", expected="an address of this machine", found="none", fix="give --host 0.0.0.0 for all"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host}"[:200], expected="an address of this machine", found="no address") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _MILLISECONDS_UNREAD)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _unbound(host, port, error) from None
    return sock


def _unbound(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(f"--port {port}", expected="a free port", found="one in use", fix="give another --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        fix = "give a --port from 1024 on"
        return UserError(f"--port {port}", expected="a port that you may open", found="a reserved one", fix=fix)
    found = error.strerror or "another one"
    return UserError(f"--host {host}"[:200], expected="an address of this machine", found=found)

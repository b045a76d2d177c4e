"""Starts a Ray on this machine, or connects to one that runs; and leaves it again.

A Ray of our own listens on loopback only, without a dashboard. No Ray sends usage statistics. An address is asked first
with a plain connection, since Ray itself waits for minutes for one that does not answer.

Knows Ray's addresses and settings. Does not know what runs on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.captured import native_words
from coolsd_rt.cluster.locate import AUTO, LOCAL, locate
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.shown import shorten

_CLIENT = "ray://"
_PATIENCE = 3.0  # seconds for a connection, and again for the first bytes
_STORE_BYTES = 512 << 20  # of a Ray of our own: images on their way
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # the first bytes of a gRPC client
_SETTINGS = 4  # the kind of the first frame of a gRPC server
_EXPECTED = "HOST:PORT of a Ray cluster, ray://HOST:PORT, auto, or no value for a Ray on this machine"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of its native code, which writes to our stderr
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # seconds until a cluster that refuses us counts as one that does not answer
}
# The name is about other systems; what it does is to use the loopback address on any of them.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to.

    address: for other commands. own: it was started by us, and ends with us. cpus: of all nodes.
    """

    address: str
    own: bool
    cpus: float


@contextlib.contextmanager
def connect(address: str, *, cpus: int | None = None) -> Iterator[Cluster]:
    """Connect to a Ray for as long as the context lasts; LOCAL starts one with `cpus` cores, which ends with it.

    The handler of SIGTERM is kept as it was: Ray sets its own. Raises UserError if nothing, or something else than a
    Ray, answers under the address; CoolsdError if a Ray does not start here.
    """
    address = locate(address)
    check_address(address)
    set_environment(address)
    own = address == LOCAL
    import ray  # after its variables

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        _init(address, cpus)
        if main:
            signal.signal(signal.SIGTERM, before)
        at = ray.get_runtime_context().gcs_address if own else address
        yield Cluster(at, own, float(ray.cluster_resources().get("CPU", 0)))
    finally:
        ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, before)


def set_environment(address: str) -> None:
    """Set Ray's variables. It reads some of them when it is imported: call this before, or import Ray by `connect`."""
    here = address == LOCAL or address.removeprefix(_CLIENT).startswith(("127.", "localhost:"))
    values = {**_QUIET, **(_LOOPBACK if here else {})}
    if here and _has_token():
        values["RAY_AUTH_MODE"] = "token"
    for name, value in values.items():
        os.environ.setdefault(name, value)


def _has_token() -> bool:
    """Whether this user has the token that Ray makes for its clusters on this machine."""
    return _token().is_file()


def _token() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _close_token() -> None:
    """Keep others of this machine from reading the token, with which they could run programs as this user."""
    with contextlib.suppress(OSError):  # there is none
        if _token().stat().st_mode & 0o077:
            _token().chmod(0o600)


def _init(address: str, cpus: int | None) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        with native_words([]):  # its level of log, and warnings while it tries again
            if address == LOCAL:
                ray.init(LOCAL, num_cpus=cpus, include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
                _close_token()  # Ray makes it readable for everyone
            else:
                ray.init(address, **quiet)
    except Exception as error:  # Ray has no class for what can go wrong here
        raise _not_connected(address, error) from error


def _not_connected(address: str, error: Exception) -> CoolsdError:
    """Return the error for a Ray that does not take us."""
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(before)
    said = " ".join(" ".join(map(str, chain)).split())
    found = shorten(" ".join(str(error).split()) or type(error).__name__)
    if address == LOCAL:
        return CoolsdError("Ray", expected="one that starts on this machine", found=found)
    fix = "run this on a machine of the cluster"
    if "auth" in said.lower() and "token" in said.lower():
        found, fix = "one that wants another token", "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to its file"
    return UserError(f"--ray {shorten(address)}", expected="a Ray cluster that takes us", found=found, fix=fix)


def check_address(address: str) -> None:
    """Raise UserError if an address has no form that Ray knows, or if nothing answers under it."""
    if address in (LOCAL, AUTO):
        return
    host, port = _parts(address)
    if found := _answer(host, port):
        fix = "check the address: ray start --head prints it"
        raise UserError(f"--ray {shorten(address)}", expected="a Ray cluster that answers", found=found, fix=fix)


def _parts(address: str) -> tuple[str, int]:
    """Return host and port of an address. Raises UserError."""
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16) or "/" in host:
        fix = "the address follows --ray: give ENGINE before it, or write --ray=ADDRESS"
        raise UserError("--ray", expected=_EXPECTED, found=shorten(address), fix=fix)
    return host, int(port)


def _answer(host: str, port: int) -> str:
    """Return what is wrong with who listens there; empty for a gRPC server, as Ray's are."""
    try:
        with socket.create_connection((host, port), _PATIENCE) as sock:
            if os.environ.get("RAY_USE_TLS", "0") != "0":  # its first bytes are encrypted
                return ""
            sock.settimeout(_PATIENCE)
            sock.sendall(_HTTP2)
            got = sock.recv(9)
    except TimeoutError:
        return "no answer"
    except (OSError, UnicodeError) as error:
        return (getattr(error, "strerror", None) or "no such host").lower()
    return "" if len(got) >= 4 and got[3] == _SETTINGS else "another service"

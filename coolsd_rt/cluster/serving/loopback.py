"""Keeps the ports of a replica on loopback where its node is on loopback.

Each replica of Ray Serve 2.60 opens a gRPC port for calls between deployments on all addresses of the machine, whatever
address Ray itself uses; such a call is unpickled. It has no option for that.

Knows one function of Ray Serve. Does not know what the replica does.
"""

from __future__ import annotations

import functools
from typing import Any

import ray

_ANY, _FUNCTION = "[::]:0", "add_port_to_grpc_server"


def stay_on_loopback() -> None:
    """Open later ports of this process on loopback, if that is the node's address. Before the replica is ready."""
    host = ray.util.get_node_ip_address()
    if not host.startswith("127."):
        return
    from ray.serve._private import replica

    add = getattr(replica, _FUNCTION, None)
    if add is None or hasattr(add, "__wrapped__"):
        return

    @functools.wraps(add)
    def add_local(server: Any, address: str) -> Any:
        return add(server, f"{host}:0" if address == _ANY else address)

    setattr(replica, _FUNCTION, add_local)

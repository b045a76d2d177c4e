"""The engines that a server has, and which of them a request is for.

Knows names and what engines make. Does not know processes or how anything is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from coolsd_rt.serve import api_errors
from coolsd_rt.serve.drawer import Drawer
from coolsd_rt.serve.metrics import ServerMetrics

Makes = Literal["image", "text"]
_VERBS = {"image": "draws images", "text": "writes text"}
_ROUTES = {"image": "POST /v1/images/generations", "text": "POST /v1/chat/completions or /v1/completions"}


@dataclass
class Served:
    """What the routes work with. seconds: the most that a request may take. draining: the server is about to end."""

    hosts: Mapping[str, Drawer]
    metrics: ServerMetrics
    seconds: float
    draining: bool = False

    def host(self, model: str) -> Drawer:
        """Return the engine of a name. Raises ApiError."""
        if model not in self.hosts:
            known = ", ".join(self.hosts)
            text = f"there is no such model; there is: {known}"
            raise api_errors.not_found(text, "model_not_found", "model")
        return self.hosts[model]

    def host_for(self, makes: Makes, model: str | None) -> Drawer:
        """Return the engine of a name; the first that makes such things if there is no name. Raises ApiError."""
        if model is not None:
            found: Drawer | None = self.host(model)
        else:
            found = next((host for host in self.hosts.values() if host.engine.makes == makes), None)
        if found is None or found.engine.makes != makes:
            other: Makes = "image" if makes == "text" else "text"
            fix = f"ask it by {_ROUTES[other]}"
            raise api_errors.invalid("model", f"an engine that {_VERBS[makes]}", f"one that {_VERBS[other]}", fix)
        return found

    def check_going(self) -> None:
        """Raise ApiError if the server is about to end."""
        if self.draining:
            raise api_errors.unavailable("the server is about to end", "draining", 5)

"""The arguments of the application: what the command line and a config file of Ray Serve can say, checked.

Knows names, ranges and defaults. Does not know Ray.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.spec.section import Within

Replicas = Annotated[int, Within(limits.PROCESSES)]


class ServingArguments(BaseModel):
    """What is served, and by how many.

    engines: folders, the same on every node. autoscale: the least and the most replicas, instead of `replicas`.
    cpus_per_replica: cores of a replica, and threads of its engine. api_key_file: a path on the node of the front.
    local: the proxies listen on loopback, so that without a key other names than this machine's are refused.
    version: any text; a new one starts all replicas again, one after another.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    engines: Annotated[list[str], Field(min_length=1)]
    slots: Annotated[int, Within(limits.MAX_BATCH)] | None = None
    queue: Annotated[int, Within(limits.QUEUE)] = 64
    timeout: Annotated[float, Within(limits.REQUEST_SECONDS)] = 300.0
    api_key_file: str | None = None
    replicas: Replicas = 1
    autoscale: Annotated[list[Replicas], Field(min_length=2, max_length=2)] | None = None
    cpus_per_replica: Annotated[int, Within(limits.THREADS)] = 1
    local: bool = False
    log_json: bool = False
    version: str = ""

    @model_validator(mode="after")
    def _one_number(self) -> ServingArguments:
        if self.autoscale is None:
            return self
        if self.autoscale[0] > self.autoscale[1]:
            raise ValueError("autoscale: the least number of replicas is above the most")
        if "replicas" in self.model_fields_set:
            raise ValueError("replicas and autoscale exclude each other")
        return self

    @staticmethod
    def of(values: dict[str, Any]) -> ServingArguments:
        """Read arguments. Raises UserError for the first that is wrong."""
        try:
            return ServingArguments(**values)
        except ValidationError as error:
            raise _refused(dict(error.errors(include_url=False)[0])) from None

    @property
    def least(self) -> int:
        """The least replicas of an engine."""
        return self.autoscale[0] if self.autoscale else self.replicas

    @property
    def most(self) -> int:
        """The most replicas of an engine."""
        return self.autoscale[1] if self.autoscale else self.replicas


def _refused(problem: dict[str, Any]) -> UserError:
    """Return the error for one of pydantic's."""
    where = ".".join(("args", *(str(part) for part in problem["loc"])))
    more = problem.get("ctx", {})
    if "expected" in more and "found" in more:
        return UserError(where, expected=str(more["expected"]), found=str(more["found"]))
    text = str(problem["msg"]).removeprefix("Value error, ")
    return UserError(f"{where}: {text}", fix="docs/ray.md has the names")


def deployment_name(engine: str) -> str:
    """Return the name of an engine's deployment."""
    return f"engine-{engine}"

"""The option `--ray` of verbs that can run on a Ray cluster, and the number of replicas. Knows click.

Does not know Ray.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from coolsd_rt import limits
from coolsd_rt.cli.numbers import number
from coolsd_rt.cluster.locate import LOCAL
from coolsd_rt.errors import UserError
from coolsd_rt.shown import shown

F = TypeVar("F", bound=Callable[..., Any])


def ray_option(function: F) -> F:
    """The option `--ray [ADDRESS]`; arrives as `ray`: None where it is not given."""
    text = (
        "Run on a Ray cluster: HOST:PORT, ray://HOST:PORT, or auto for the one on this machine; without a value a Ray "
        "of its own is started here, for loopback."
    )
    return click.option("--ray", metavar="[ADDRESS]", is_flag=False, flag_value=LOCAL, default=None, help=text)(
        function
    )


def replica_options(function: F) -> F:
    """Options about the processes of an engine on a Ray cluster; arrive as the arguments of `Replicas.of`."""
    cpus = "With --ray: cores of each replica, and threads of its engine; default: all, shared by the replicas."
    options = (
        click.option(
            "--replicas", type=number(limits.PROCESSES), help="With --ray: processes of each engine; default: 1."
        ),
        click.option(
            "--autoscale", metavar="MIN:MAX", help="With --ray: as many replicas as requests need, in this range."
        ),
        click.option("--cpus-per-replica", type=number(limits.THREADS), help=cpus),
    )
    for option in reversed(options):
        function = option(function)
    return function


@dataclass(frozen=True)
class Replicas:
    """How many processes run an engine, and the cores of each; None shares all."""

    least: int
    most: int
    cpus: int | None

    @property
    def said(self) -> str:
        """The number in words."""
        if self.least < self.most:
            return f"{self.least} to {self.most} replicas"
        return "1 replica" if self.most == 1 else f"{self.most} replicas"

    @staticmethod
    def of(
        ray: str | None, replicas: int | None, autoscale: str | None, cpus: int | None, threads: int | None
    ) -> Replicas | None:
        """Return what the options say; None without --ray. Raises UserError for options that exclude each other."""
        if ray is None:
            given = {"--replicas": replicas, "--autoscale": autoscale, "--cpus-per-replica": cpus}
            for name in (name for name, value in given.items() if value is not None):
                raise UserError(name, expected="--ray beside it", found="none", fix="add --ray")
            return None
        if threads is not None:
            raise UserError("--threads", expected="none beside --ray", found="both", fix="give --cpus-per-replica")
        if autoscale is None:
            return Replicas(replicas or 1, replicas or 1, cpus)
        if replicas is not None:
            raise UserError("--replicas", expected="it or --autoscale", found="both", fix="leave one out")
        return Replicas(*_ends(autoscale), cpus)


def _ends(text: str) -> tuple[int, int]:
    """Return the numbers of MIN:MAX. Raises UserError."""
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    least, most = (int(found[1]), int(found[2])) if found else (0, 0)
    if least not in limits.PROCESSES or most not in limits.PROCESSES or least > most:
        expected = f"MIN:MAX, the least and the most replicas, each {limits.PROCESSES.said}"
        raise UserError("--autoscale", expected=expected, found=shown(text), fix="as in --autoscale 1:4")
    return least, most

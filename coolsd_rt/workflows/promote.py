"""Builds an engine, verifies it where that is required, and promotes it: points its pipeline's name to it.

A GPU engine is verified on a GPU before `engines/NAME` points to it; any other engine is promoted as soon as it is
built. Knows the order of the steps and the condition. Does not know how building or parity works or how they are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from coolsd_rt.backends.tensorrt.package import local_gpu, require_gpu
from coolsd_rt.errors import CoolsdError
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows.build import run as building
from coolsd_rt.workflows.build.run import BuildPlan, Built
from coolsd_rt.workflows.parity import run as proving

ENGINES = Path("engines")  # default folder for engines


def _silent_build(plan: BuildPlan) -> AbstractContextManager[building.BuildCallbacks]:
    return nullcontext(building.BuildCallbacks())


def _silent_parity() -> AbstractContextManager[proving.ParityCallbacks]:
    return nullcontext(proving.ParityCallbacks())


@dataclass(frozen=True)
class PromoteCallbacks:
    """Callbacks that report progress.

    Attributes:
        build: returns a context manager that is entered before the build and left after it.
        parity: the same for the parity run.
        verified: called with the outcome for a GPU engine.
    """

    build: Callable[[BuildPlan], AbstractContextManager[building.BuildCallbacks]] = _silent_build
    parity: Callable[[], AbstractContextManager[proving.ParityCallbacks]] = _silent_parity
    verified: Callable[[Promoted], None] = lambda promoted: None


@dataclass(frozen=True)
class Promoted:
    """A finished build.

    Attributes:
        passed: whether the engine passed parity; None if none was required or no GPU is available.
        failures: one line for each threshold that was missed.
        compared: whether this call ran parity; otherwise an earlier receipt decided.
    """

    built: Built
    passed: bool | None = None
    failures: tuple[str, ...] = ()
    compared: bool = False

    @property
    def folder(self) -> Path:
        """The engine's folder, engines/NAME/FINGERPRINT."""
        return self.built.engine.folder

    @property
    def gated(self) -> bool:
        """Whether promotion depended on parity."""
        return self.built.plan.gated

    @property
    def current(self) -> bool:
        """Whether engines/NAME points to this engine now."""
        return self.passed is True or not self.gated


def promote(plan: BuildPlan, listener: PromoteCallbacks | None = None) -> Promoted:
    """Build a plan, and verify the engine if required. Raises as `build.build` and `parity.parity` do."""
    listener = listener or PromoteCallbacks()
    building.require_packages(plan)
    with listener.build(plan) as hears:
        built = building.build(plan, hears)
    if not plan.gated:
        return Promoted(built)
    promoted = _verified(built, listener)
    listener.verified(promoted)
    return promoted


def _verified(built: Built, listener: PromoteCallbacks) -> Promoted:
    receipt = built.engine.manifest.parity
    if not built.fresh and receipt is not None and receipt.get("passed"):
        built.engine.make_current()
        return Promoted(built, True)
    if local_gpu() is None:
        return Promoted(built)
    with listener.parity() as hears:
        proof = proving.parity(built.engine.folder, spec_file=built.plan.loaded.path, listener=hears)
    return Promoted(built, proof.passed, proof.failures, compared=True)


def engine_of(spec: Path, out: Path = ENGINES, listener: PromoteCallbacks | None = None) -> Path:
    """Return the folder of a spec's engine, OUT/NAME/FINGERPRINT; builds it if it does not exist.

    Raises CoolsdError if the engine does not pass parity, UserError and MissingExtra as `promote` does, and UserError
    if the engine is for a GPU and this machine has none.
    """
    plan = building.plan(load_spec(spec), out)
    if plan.gated:
        require_gpu(what=f"drawing with {spec}")
    promoted = promote(plan, listener)
    if promoted.passed is False:
        fix = f"to use it all the same: coolsd-rt generate {promoted.folder} ..."
        raise CoolsdError(str(spec), expected="an engine that passes parity", found="one that does not", fix=fix)
    return promoted.folder

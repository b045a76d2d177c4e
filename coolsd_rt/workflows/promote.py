"""From a plan to an engine that its pipeline's name may mean: built, verified where that is gated, promoted.

An engine for a GPU is verified on a GPU before `engines/NAME` points to it; any other is promoted as it is built. Knows
the order and who decides. Does not know what a build or a parity run does, nor how either is shown.
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
from coolsd_rt.workflows.build.run import Built, Plan
from coolsd_rt.workflows.parity import run as proving

ENGINES = Path("engines")  # where engines are built unless another folder is asked for


def _silent_build(plan: Plan) -> AbstractContextManager[building.Listener]:
    return nullcontext(building.Listener())


def _silent_parity() -> AbstractContextManager[proving.Listener]:
    return nullcontext(proving.Listener())


@dataclass(frozen=True)
class PromoteCallbacks:
    """Who wants to hear of the work. build and parity are entered before their part begins and left when it is over;
    verified hears how an engine for a GPU fared."""

    build: Callable[[Plan], AbstractContextManager[building.Listener]] = _silent_build
    parity: Callable[[], AbstractContextManager[proving.Listener]] = _silent_parity
    verified: Callable[[Promoted], None] = lambda promoted: None


@dataclass(frozen=True)
class Promoted:
    """A finished build. passed: whether it passes parity; None if that was not asked, or if there is no GPU here.

    compared: whether this call ran parity; else an earlier receipt decided. failures: a line for each threshold missed.
    """

    built: Built
    passed: bool | None = None
    failures: tuple[str, ...] = ()
    compared: bool = False

    @property
    def folder(self) -> Path:
        """The engine's own folder, engines/NAME/FINGERPRINT."""
        return self.built.engine.folder

    @property
    def gated(self) -> bool:
        """Whether promotion depended on parity."""
        return self.built.plan.gated

    @property
    def current(self) -> bool:
        """Whether engines/NAME means this engine now."""
        return self.passed is True or not self.gated


def promote(plan: Plan, listener: PromoteCallbacks | None = None) -> Promoted:
    """Build what is planned, and verify it if it has to be. Raises as `build.build` and `parity.parity`."""
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
    """A spec's engine, OUT/NAME/FINGERPRINT, built now if it is not there.

    Raises CoolsdError: it does not pass parity. UserError, MissingExtra: as `promote`, and without the GPU it is for.
    """
    plan = building.plan(load_spec(spec), out)
    if plan.gated:
        require_gpu(what=f"drawing with {spec}")
    promoted = promote(plan, listener)
    if promoted.passed is False:
        fix = f"to use it all the same: coolsd-rt generate {promoted.folder} ..."
        raise CoolsdError(str(spec), expected="an engine that passes parity", found="one that does not", fix=fix)
    return promoted.folder

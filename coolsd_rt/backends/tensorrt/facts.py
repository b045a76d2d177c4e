"""The facts a build records about an engine, and their comparison with this machine before the engine is parsed.

Knows versions and devices as strings. Does not know TensorRT. An engine is code for one version of one package, and for
one kind of GPU unless it was built for all: a mismatch would fail later, with an error of TensorRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coolsd_rt.backends.tensorrt.package import Gpu
from coolsd_rt.backends.tensorrt.profiles import Profile
from coolsd_rt.errors import CoolsdError


@dataclass(frozen=True)
class Facts:
    """Facts about the engine of one graph.

    capabilities: compute capabilities such as `8.9`; empty: any that the package supports.
    details: for people and tests (layer counts, seconds); a load does not read them.
    """

    flavour: str
    version: str
    capabilities: tuple[str, ...]
    precision: str
    capacity: int
    profiles: tuple[Profile, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for the manifest."""
        return {
            "flavour": self.flavour,
            "version": self.version,
            "capabilities": list(self.capabilities),
            "precision": self.precision,
            "capacity": self.capacity,
            "profiles": [profile.as_dict() for profile in self.profiles],
            "details": dict(self.details),
        }

    @staticmethod
    def from_dict(data: Any, name: str) -> Facts:
        """Read facts from JSON data. Raises CoolsdError if they are not facts of an engine."""
        try:
            return Facts(
                str(data["flavour"]),
                str(data["version"]),
                tuple(str(c) for c in data["capabilities"]),
                str(data["precision"]),
                int(data["capacity"]),
                tuple(Profile.from_dict(p) for p in data["profiles"]),
                dict(data["details"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            found = f"{type(error).__name__}: {error}"
            raise CoolsdError(
                f"the build record of engine {name}",
                expected="its versions and sizes",
                found=found,
                fix="build it again",
            ) from error


def check_facts(facts: Facts, name: str, *, flavour: str, version: str, gpu: Gpu, rebuild: str) -> None:
    """Compare an engine with the package and the GPU of this machine. rebuild: what to type, for errors.

    Raises CoolsdError: another package, another version of it, another kind of GPU.
    """
    sides = [
        ("the package", facts.flavour, flavour),
        (f"the version of {flavour}", facts.version, version),
    ]
    if facts.capabilities and gpu.capability not in facts.capabilities:
        sides.append(("compute capability", " or ".join(facts.capabilities), f"{gpu.capability} ({gpu.name})"))
    for what, built, here in sides:
        if built != here:
            raise CoolsdError(f"engine {name}: {what}", expected=f"{built}, as at build time", found=here, fix=rebuild)


def check_capacity(facts: Facts, name: str, wanted: int, rebuild: str) -> None:
    """Raise CoolsdError if the engine's caches are too short for `wanted` positions."""
    if wanted > facts.capacity:
        expected = f"at most {facts.capacity} positions, the capacity at build time"
        raise CoolsdError(f"engine {name}: the KV caches", expected=expected, found=str(wanted), fix=rebuild)

"""Timed variants to rows, ratios, goals and text. Knows figures and tables; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coolsd_rt.bench.timing import Timed

EAGER, PLAIN, LOSSLESS, RELAXED = "eager PyTorch", "plain", "speculation, lossless", "COOL-SD, delta 1.1"
STRONGER = "COOL-SD, delta 2"
JACOBI_LOSSLESS, JACOBI = f"{LOSSLESS}, Jacobi drafts", f"{RELAXED}, Jacobi drafts"
COLUMNS = ("engine", "decoding", "tokens/s (min-max)", "vs eager", "vs own plain", "accept length", "outside engine")


@dataclass(frozen=True)
class Goal:
    """A figure to reach, and what was found. `least`: at least the goal, else under it."""

    what: str
    goal: float
    found: float
    least: bool = True
    unit: str = "x"

    @property
    def reached(self) -> bool:
        return self.found >= self.goal if self.least else self.found < self.goal

    def cells(self) -> tuple[str, str, str, str]:
        word = "at least" if self.least else "under"
        return self.what, f"{word} {_figure(self.goal, self.unit)}", _figure(self.found, self.unit), self._verdict

    @property
    def _verdict(self) -> str:
        return "reached" if self.reached else "not reached"

    def as_dict(self) -> dict[str, Any]:
        return {"what": self.what, "goal": self.goal, "found": self.found, "unit": self.unit, "reached": self.reached}


def _figure(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "%" else f"{value:.0f} {unit}" if unit == "MB" else f"{value:.2f}{unit}"


@dataclass(frozen=True)
class Table:
    """All timed variants of one run, found by group and name."""

    timed: Sequence[Timed]
    memory: Mapping[str, int]  # peak bytes of `coolsd-rt generate`, by group

    def of(self, group: str, name: str) -> Timed:
        return next(t for t in self.timed if (t.variant.group, t.variant.name) == (group, name))

    @property
    def groups(self) -> list[str]:
        """Groups that are engines of ours."""
        return [g for g in dict.fromkeys(t.variant.group for t in self.timed) if g != EAGER]

    def versus(self, entry: Timed, group: str, name: str) -> float:
        """Ratio of the medians of tokens/s."""
        return entry.rate / self.of(group, name).rate

    def rows(self) -> list[tuple[str, ...]]:
        return [self._row(entry) for entry in self.timed]

    def _row(self, entry: Timed) -> tuple[str, ...]:
        variant, figures = entry.variant, entry.as_dict()
        own = self.versus(entry, variant.group, PLAIN)
        verdict = f"{own:.2f}x" + (", does not pay" if not variant.settings.plain and own < 1 else "")
        return (
            variant.group,
            variant.name,
            f"{entry.rate:.0f} ({min(entry.rates):.0f}-{max(entry.rates):.0f})",
            f"{self.versus(entry, EAGER, PLAIN):.2f}x",
            "1" if variant.settings.plain else verdict,
            f"{figures['mean_acceptance_length']:.2f}",
            "-" if entry.outside_engine is None else f"{entry.outside_engine:.0%}",
        )

    def losing(self) -> list[str]:
        """One line for each setting where speculation is slower than plain decoding on the same engine."""
        return [
            f"{t.variant.name} on {t.variant.group} is slower than plain decoding "
            f"({self.versus(t, t.variant.group, PLAIN):.2f}x)"
            for t in self.timed
            if not t.variant.settings.plain and self.versus(t, t.variant.group, PLAIN) < 1
        ]

    def goals(self) -> list[Goal]:
        """The figures this project set itself, for what was measured."""
        out = [
            Goal(f"plain on {g} vs eager PyTorch", 3.0, self.versus(self.of(g, PLAIN), EAGER, PLAIN))
            for g in self.groups
            if g == "fp32"
        ]
        if {"fp32", "int8"} <= set(self.groups):
            out.append(Goal("plain on int8 vs fp32", 1.3, self.versus(self.of("int8", PLAIN), "fp32", PLAIN)))
        for g in self.groups:
            here = {t.variant.name for t in self.timed if t.variant.group == g}
            for name, goal in ((LOSSLESS, 1.1), (JACOBI_LOSSLESS, 1.1), (RELAXED, 1.3), (JACOBI, 1.3)):
                if name in here:
                    out.append(Goal(f"{name}, {g} vs plain", goal, self.versus(self.of(g, name), g, PLAIN)))
            outside = self.of(g, RELAXED).outside_engine
            if outside is not None:  # a device's loop does not tell
                out.append(Goal(f"time outside the {g} engine, COOL-SD", 0.15, outside, least=False, unit="%"))
        for g, peak in self.memory.items():
            out.append(Goal(f"peak memory of generate on {g}, a full batch", 400.0, peak / 1e6, least=False, unit="MB"))
        return out

    def as_dict(self) -> dict[str, Any]:
        return {
            "ways": [
                t.as_dict()
                | {"versus_eager": self.versus(t, EAGER, PLAIN), "versus_plain": self.versus(t, t.variant.group, PLAIN)}
                for t in self.timed
            ],
            "memory": dict(self.memory),
            "goals": [g.as_dict() for g in self.goals()],
            "losing": self.losing(),
        }


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"

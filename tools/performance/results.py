"""From a record to figures: medians with their least and most, and ratios of medians. JSON data, from which every
table is made.

Knows records. Does not know how a figure is shown, or how it was taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.demo.report import JACOBI, PLAIN, Goal
from tools.performance.contenders import AUTO, COMPILED, EAGER, OFFICIAL, TORCH, Contender
from tools.performance.floor import floor_seconds
from tools.performance.models import Traffic
from tools.performance.splits import PARTS
from tools.performance.turns import FIRST, Record

Figures = dict[str, Any]
FLOOR, SPLIT = "floor", "split"  # keys of a record, beside those of contenders
_ITEM = {TORCH: "fp32"}  # whose floor an engine has, if not that of its own name


def spread(values: Iterable[float]) -> Figures:
    """Return median, least and most."""
    found = list(values)
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def model_figures(
    name: str, record: Record, contenders: Sequence[Contender], tokens: int, traffic: Mapping[str, Traffic]
) -> Figures:
    """Return the figures of one model. tokens: of one image. traffic: of a step, by precision."""
    speed = spread(entry["bytes_per_second"] for entry in record.below(f"{name}/{FLOOR}"))
    floors = {
        precision: {
            "bytes": part.bytes,
            "matrices": part.matrices,
            "ms": floor_seconds(part.bytes, speed["median"]) * 1e3,
        }
        for precision, part in traffic.items()
    }
    rows = []
    for one in contenders:
        if turns := record.below(f"{name}/{one.key}"):
            rows.append(_row(one, turns, tokens, floors))
    _ratios(rows)
    first = record.below(f"{name}/{FIRST}/{TORCH}/{COMPILED}")
    compiling = {"first_image_seconds": first[0]["seconds"]} if first else {}
    return {"bandwidth": speed, "floors": floors, "rows": rows, "splits": _splits(name, record), **compiling}


def _row(one: Contender, turns: Sequence[Mapping[str, Any]], tokens: int, floors: Mapping[str, Any]) -> Figures:
    images = one.images
    ms = spread(turn["seconds"] * 1e3 / tokens / images for turn in turns)
    row = {
        "engine": one.engine,
        "name": one.name,
        "images": images,
        "turns": len(turns),
        "ms": ms,
        "tokens_per_second": 1e3 / ms["median"],
        "accept_length": statistics.mean(turn["accept"] for turn in turns),
        "phases": _mean_phases(turns),
        "note": "; ".join(dict.fromkeys(turn["note"] for turn in turns if turn["note"])),
    }
    floor = floors.get(_ITEM.get(one.engine, one.engine))
    return row | ({"over_floor": ms["median"] / floor["ms"]} if floor and images == 1 else {})


def _mean_phases(turns: Sequence[Mapping[str, Any]]) -> Figures:
    """Mean seconds of a batch by phase; empty where the loop does not measure them."""
    names = turns[0]["phases"]
    return {name: statistics.mean(turn["phases"][name] for turn in turns) for name in names}


def _ratios(rows: Sequence[Figures]) -> None:
    """Add speeds as multiples: of eager, compiled and official code at one image, and of plain decoding as many at
    once on the same engine."""
    by = {(row["engine"], row["name"], row["images"]): row["tokens_per_second"] for row in rows}
    for row in rows:
        speed = row["tokens_per_second"]
        if plain := by.get((row["engine"], PLAIN, row["images"])):
            row["versus_plain"] = speed / plain
        if row["images"] == 1:
            for key, name in (("versus_eager", EAGER), ("versus_compiled", COMPILED), ("versus_official", OFFICIAL)):
                if other := by.get((TORCH, name, 1)):
                    row[key] = speed / other


def _splits(name: str, record: Record) -> list[Figures]:
    """Mean seconds of each part, so that the parts add up to the mean wall time."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in record.below(f"{name}/{SPLIT}"):
        found.setdefault((entry["engine"], entry["way"]), []).append(entry)
    return [
        {
            "engine": engine,
            "way": way,
            "runs": len(entries),
            "wall": statistics.mean(e["wall"] for e in entries),
            "parts": {part: statistics.mean(e["parts"][part] for e in entries) for part in PARTS},
        }
        for (engine, way), entries in found.items()
    ]


def goals(models: Mapping[str, Figures]) -> list[Figures]:
    """Return what this project wants to be beside torch.compile, and what was found."""
    out = []
    for name, figures in models.items():
        rows = {(row["engine"], row["name"]): row for row in figures["rows"] if row["images"] == 1}
        wanted = [("fp32", PLAIN, 1.3), ("fp32", AUTO, 1.3), ("int8", PLAIN, 3.0), ("int8", AUTO, 3.0)]
        if figures["real"]:
            wanted += [("fp32", JACOBI, 5.0), ("int8", JACOBI, 5.0)]
        for engine, way, least in wanted:
            ratio = rows.get((engine, way), {}).get("versus_compiled")
            if ratio is not None:
                out.append(Goal(f"{name}: {engine}, {way}", least, ratio).as_dict())
    return out

"""Figures as Markdown: the tables of docs/performance.md and of the README, each by its name.

Knows the JSON data of `results`. Does not know files or how anything was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.demo.report import JACOBI, LOSSLESS, PLAIN, RELAXED, markdown
from tools.performance.contenders import AUTO, COMPILED, EAGER, OFFICIAL, TORCH
from tools.performance.splits import PARTS

NOT_YET = "*Not measured yet: `python -m tools.performance --publish`.*\n"
Results = Mapping[str, Any]
Row = Mapping[str, Any]


def machine_line(results: Results) -> str:
    """What everything was measured on."""
    here = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items() if version)
    lasted = f"; {results['seconds'] / 60:.0f} minutes" if results["seconds"] else ""
    return (
        f"{here['cpu']}, {here['threads']} threads, a load of {here['load_average']:.1f} when it began; {versions}; "
        f"{results['created'][:10]}{lasted}.\n"
    )


def one_image(results: Results, name: str) -> str:
    """All contenders at one image at a time."""
    model = _model(results, name)
    if model is None:
        return _absent(results, name)
    columns = (
        "engine",
        "decoding",
        "ms a token (min-max)",
        "tokens/s",
        "vs eager",
        "vs torch.compile",
        "over the floor",
        "tokens a round",
    )
    rows = [
        (
            row["engine"],
            row["name"],
            _milliseconds(row),
            _number(row["tokens_per_second"]),
            _times(row.get("versus_eager")),
            _times(row.get("versus_compiled")),
            _times(row.get("over_floor"), 1),
            _accept(row, model),
        )
        for row in model["rows"]
        if row["images"] == 1
    ]
    return markdown(columns, rows) + "\n" + _under(model)


def _under(model: Row) -> str:
    """What belongs to a table: turns, the floor, compile time, who was left out."""
    floors = ", ".join(
        f"{precision} {floor['ms']:.2f} ms ({floor['bytes'] / 1e6:.0f} MB)"
        for precision, floor in model["floors"].items()
    )
    speed = model["bandwidth"]
    turns = " or ".join(str(n) for n in sorted({row["turns"] for row in model["rows"]}))
    parts = [f"{turns} turns. Floor of a token: {floors}, at {speed['median'] / 1e9:.1f} GB/s."]
    if "first_image_seconds" in model:
        parts.append(f"The first image of torch.compile, with compiling: {model['first_image_seconds']:.0f} s.")
    plans = [f"{row['engine']} {row['note']}" for row in model["rows"] if row["name"] == AUTO and row["images"] == 1]
    if plans:
        parts.append(f"`auto` chose: {'; '.join(plans)}.")
    if not model["real"]:
        parts.append("Tokens a round are set, not found.")
    parts += [f"{key} is left out: {why}." for key, why in model["left_out"].items()]
    return " ".join(parts) + "\n"


def at_once(results: Results, name: str) -> str:
    """Tokens a second of all images together, by how many are drawn at once."""
    model = _model(results, name)
    if model is None:
        return _absent(results, name)
    sizes = sorted({row["images"] for row in model["rows"]})
    rows = []
    for engine in dict.fromkeys(row["engine"] for row in model["rows"] if row["engine"] != TORCH):
        for way in (PLAIN, LOSSLESS, AUTO):
            found = {r["images"]: r for r in model["rows"] if (r["engine"], r["name"]) == (engine, way)}
            if found:
                rows.append((engine, way, *(_speed_at(found.get(size)) for size in sizes)))
    heads = [f"{size} image{'s' if size > 1 else ''}" for size in sizes]
    return markdown(("engine", "decoding", *heads), rows)


def _speed_at(row: Row | None) -> str:
    if row is None:
        return "-"
    ratio = "" if row["name"] == PLAIN or "versus_plain" not in row else f" ({row['versus_plain']:.2f}x plain)"
    return f"{_number(row['tokens_per_second'])}{ratio}"


def split(results: Results, name: str) -> str:
    """Seconds of one image in a process of its own."""
    model = _model(results, name)
    if model is None:
        return _absent(results, name)
    rows = [
        (one["engine"], one["way"], f"{one['wall']:.2f}", *(f"{one['parts'][part]:.2f}" for part in PARTS))
        for one in model["splits"]
    ]
    return markdown(("engine", "decoding", "seconds", *PARTS), rows)


def goals(results: Results) -> str:
    """What was wanted beside torch.compile."""
    rows = [
        (g["what"], f"{g['goal']:.1f}x", _times(g["found"]), "reached" if g["reached"] else "not reached")
        for g in results["goals"]
    ]
    return markdown(("one image at a time", "goal, vs torch.compile", "found", ""), rows)


def overview(results: Results) -> str:
    """The README's first table: how many times as fast as eager code, and as torch.compile of it; and two sentences."""
    models = {name: model for name in ("demo", "b") if (model := _model(results, name))}
    ways = [(TORCH, EAGER), (TORCH, OFFICIAL), (TORCH, COMPILED)]
    ways += [(engine, way) for engine in ("fp32", "int8") for way in (PLAIN, RELAXED, JACOBI, AUTO)]
    rows = []
    for engine, way in ways:
        cells = [_overview_cells(model, engine, way) for model in models.values()]
        if any(cell != ("-", "-", "-") for cell in cells):
            rows.append((engine, way, *(text for cell in cells for text in cell)))
    heads = ("ms a token", "vs eager", "vs torch.compile")
    columns = [f"{model['title']}, {head}" for model in models.values() for head in heads]
    said = " ".join(filter(None, (sentence(results), at_once_sentence(results))))
    return markdown(("engine", "decoding", *columns), rows) + f"\n{said}\n"


def _overview_cells(model: Row, engine: str, way: str) -> tuple[str, str, str]:
    for row in model["rows"]:
        if (row["engine"], row["name"], row["images"]) == (engine, way, 1):
            ms = f"{row['ms']['median']:.2f}"
            return ms, _times(row.get("versus_eager")), _times(row.get("versus_compiled"))
    return "-", "-", "-"


def sentence(results: Results) -> str:
    """What the README says of plain decoding, in words."""
    parts = []
    for name in ("demo", "b"):
        rows = {
            (r["engine"], r["name"]): r for r in (_model(results, name) or {"rows": []})["rows"] if r["images"] == 1
        }
        plain = rows.get(("fp32", PLAIN), {})
        if "versus_eager" in plain and "versus_compiled" in plain:
            eager, compiled = plain["versus_eager"], plain["versus_compiled"]
            title = results["models"][name]["title"]
            parts.append(f"{title} {eager:.1f}x our own eager code, {compiled:.2f}x torch.compile of it")
    return f"Plain decoding of our fp32 engine: {'; '.join(parts)}." if parts else ""


def at_once_sentence(results: Results) -> str:
    """What `auto` gives on the demo with more images at once, in words; empty without such rows."""
    parts = []
    for engine in ("fp32", "int8"):
        rows = [
            r for r in (_model(results, "demo") or {"rows": []})["rows"] if (r["engine"], r["name"]) == (engine, AUTO)
        ]
        if len(rows) > 1:
            sizes = "/".join(str(r["images"]) for r in rows)
            parts.append(
                f"{engine} {'/'.join(_number(r['tokens_per_second']) for r in rows)} tokens/s at {sizes} images"
            )
    return f"Images at once on the demo, `auto`: {'; '.join(parts)}." if parts else ""


TABLES: dict[str, Callable[[Results], str]] = {
    "machine": machine_line,
    "goals": goals,
    "overview": overview,
    **{f"{name}-one": lambda results, name=name: one_image(results, name) for name in ("demo", "b", "xl")},  # type: ignore[misc]
    **{f"{name}-split": lambda results, name=name: split(results, name) for name in ("demo", "b", "xl")},  # type: ignore[misc]
    "demo-at-once": lambda results: at_once(results, "demo"),
}


def _model(results: Results, name: str) -> Row | None:
    found: Row | None = results["models"].get(name)
    return found


def _absent(results: Results, name: str) -> str:
    return f"*Not in this run: {results['left_out'].get(name, 'not asked for')}.*\n"


def _milliseconds(row: Row) -> str:
    ms = row["ms"]
    return f"{ms['median']:.2f} ({ms['min']:.2f}-{ms['max']:.2f})"


def _times(ratio: float | None, digits: int = 2) -> str:
    return "-" if ratio is None else f"{ratio:.{digits}f}x"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _accept(row: Row, model: Row) -> str:
    if row["accept_length"] == 1:
        return "1"
    return f"{row['accept_length']:.2f}" + ("" if model["real"] else " (set)")


def listed(results: Results) -> Sequence[tuple[str, str]]:
    """Return name and text of every table, for a terminal."""
    return [(name, make(results)) for name, make in TABLES.items()]

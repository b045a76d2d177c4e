"""What the tests of builds share: small changes to a spec's files, and what stands in an output folder."""

from __future__ import annotations

from pathlib import Path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path: Path) -> None:
    """Change one weight, and nothing else."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def left(out: Path) -> list[str]:
    """What stands in an output folder but finished stages and locks."""
    temps = list((out / ".tmp").glob("*")) if (out / ".tmp").is_dir() else []
    return [p.name for p in (*temps, *(p for p in out.glob("*") if p.name not in (".cache", ".locks", ".tmp")))]

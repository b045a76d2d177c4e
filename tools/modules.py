"""Write docs/modules.md: a line for each module, the first of its docstring. `--check` fails if it is not current.

Knows files and their syntax trees. Imports nothing of the package.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "modules.md"
FOLDERS = ("coolsd_rt", "tools")
HEAD = """# Modules

A line each, the first of its docstring; the rooms they stand in are in [architecture.md](architecture.md). Written by
`python tools/modules.py`.
"""


def text() -> str:
    """The page."""
    parts = [HEAD]
    for top in FOLDERS:
        room = ""
        for path in sorted((ROOT / top).rglob("*.py"), key=lambda p: (p.parent, p.name)):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if not doc:
                continue
            where = path.relative_to(ROOT)
            if str(where.parent) != room:
                room = str(where.parent)
                parts.append(f"\n## {room}/\n")
            parts.append(f"- `{where.name}`: {doc.splitlines()[0]}")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Entry point."""
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if current else f"error: {PAGE} is not current; run: python tools/modules.py")
    PAGE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
